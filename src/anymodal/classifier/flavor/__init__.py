"""The models as MLflow pyfuncs in the models-from-code form: nothing is pickled."""
