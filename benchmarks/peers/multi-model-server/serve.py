"""SageMaker's multi-model-server: a Java front and one Python worker process.

Run as a script it writes the model archive and the configuration beside its environment and starts the
server; imported by the server it is the service.
"""

import os
import sys
import zipfile
from pathlib import Path

if __name__ == "__main__":
    port, directory = int(sys.argv[1]), sys.argv[2]
    store = Path(sys.prefix) / "store"
    store.mkdir(exist_ok=True)
    manifest = """{"implementationVersion": "1.0", "specificationVersion": "1.0", "runtime": "python",
      "model": {"modelName": "model", "handler": "serve.py:handle"}, "engine": {"engineName": "none"}}"""
    with zipfile.ZipFile(store / "model.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", manifest)
        archive.write(__file__, "serve.py")
    (store / "log4j2.xml").write_text(
        '<Configuration><Appenders><Console name="out"><PatternLayout pattern="%m%n"/></Console></Appenders>'
        '<Loggers><Root level="warn"><AppenderRef ref="out"/></Root></Loggers></Configuration>'
    )
    (store / "config.properties").write_text(
        f"inference_address=http://127.0.0.1:{port}\nmanagement_address=http://127.0.0.1:{port + 1}\n"
        "default_workers_per_model=1\njob_queue_size=1000\n"
    )
    (store / "tmp").mkdir(exist_ok=True)
    (store / "tmp" / ".model_server.pid").unlink(missing_ok=True)
    os.environ |= {"MODEL_DIRECTORY": directory, "TMPDIR": str(store / "tmp"), "TEMP": str(store / "tmp")}
    server = str(Path(sys.executable).parent / "multi-model-server")
    options = ["--start", "--foreground", "--models", "model=model.mar", "--model-store", str(store)]
    options += ["--mms-config", str(store / "config.properties"), "--log-config", str(store / "log4j2.xml")]
    os.execv(server, [server, *options])

sys.path += os.environ["PYTHONPATH"].split(os.pathsep)
import json

import predictor

predict = predictor.load(os.environ["MODEL_DIRECTORY"])


def handle(data, context):
    if data is None:
        return None
    answers = []
    for item in data:
        body = item["body"]
        payload = body if isinstance(body, dict) else json.loads(bytes(body))
        answers.append({"predictions": predict(predictor.rows_of(payload))})
    return answers
