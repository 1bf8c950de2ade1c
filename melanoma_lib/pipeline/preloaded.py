"""What notebooks import, imported once by the fork server of `processes`; all forks have it."""

# ruff: noqa: E402, F401
import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started the server

import ipykernel.kernelapp
import matplotlib.pyplot
import pandas
import papermill
import pyarrow.parquet
import pytorch_grad_cam
import scipy.stats
import sklearn.metrics
import timm
import torch
