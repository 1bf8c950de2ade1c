"""Imported once by the process that is forked for every notebook: what most notebooks import."""

import signal

# What ends a command is for the process that starts the forks: it ends them.
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)

# None of these starts CUDA, which would be of no use in a fork.
import IPython.core.interactiveshell
import pandas
import papermill
import pyarrow.parquet
import pytorch_grad_cam
import scipy.stats
import seaborn
import sklearn.metrics
import timm
import torch
