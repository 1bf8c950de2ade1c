"""The notebooks executed in order through papermill, the state of a run, and its web pages."""
