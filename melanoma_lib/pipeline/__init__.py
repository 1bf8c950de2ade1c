"""The notebooks executed in order through papermill, how far that is, and the pages made of it."""
