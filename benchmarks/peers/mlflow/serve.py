"""MLflow: a pyfunc model behind `mlflow models serve`, in the environment that is already there."""

import os
import shutil
import sys
from pathlib import Path

import mlflow
import pandas
import predictor


class Served(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.predictor = predictor.load(os.environ["MODEL_DIRECTORY"])

    def predict(self, context, model_input, params=None):
        rows = model_input.to_numpy() if isinstance(model_input, pandas.DataFrame) else model_input
        return self.predictor(rows)


if __name__ == "__main__":
    port, directory = sys.argv[1], sys.argv[2]
    os.environ |= {"MODEL_DIRECTORY": directory, "MLFLOW_TRACKING_URI": f"file:{sys.prefix}/runs"}
    os.environ["PATH"] = f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}"  # where it looks for uvicorn
    folder = Path(sys.prefix) / "model"
    shutil.rmtree(folder, ignore_errors=True)
    mlflow.pyfunc.save_model(folder, python_model=Served(), pip_requirements=[])
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder), "--env-manager", "local"]
    os.execv(sys.executable, [*command, "--host", "127.0.0.1", "--port", port, "--workers", "1"])
