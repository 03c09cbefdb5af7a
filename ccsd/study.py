"""Names of the files of a trained model, for those who only look whether they are there."""

WEIGHTS = "model.safetensors"
RECORD = "run.json"
