"""The models as MLflow pyfuncs, in MLflow's models-from-code form: nothing is pickled.

MLflow copies the script and the package beside the model, so that a process that knows nothing of
the project can load it with `mlflow.pyfunc.load_model`.
"""
