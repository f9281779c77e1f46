"""LitServe: one HTTP process, one inference process."""

import sys

import litserve
import predictor


class Api(litserve.LitAPI):
    def setup(self, device):
        self.predictor = predictor.load(sys.argv[2])

    def decode_request(self, request):
        return predictor.rows_of(request)

    def predict(self, rows):
        return self.predictor(rows)

    def encode_response(self, predictions):
        return {"predictions": predictions}


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=1)
    quiet = {"generate_client_file": False, "log_level": "warning", "access_log": False}
    server.run(host="127.0.0.1", port=int(sys.argv[1]), **quiet)
