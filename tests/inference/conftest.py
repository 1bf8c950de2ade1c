import os

import pytest
import requests
from helpers import KEYS

from melanoma_lib.inference.predictor import Predictor

os.environ["NO_PROXY"] = "*"  # pages of tests lie on this machine


@pytest.fixture(scope="session")
def predictor(sample_run):
    return Predictor(sample_run / KEYS[0])


@pytest.fixture(scope="session")
def images(sample_dir):
    """Paths of eight images of the sample."""
    return sorted((sample_dir / "images").iterdir())[:8]


@pytest.fixture
def prediction(predictor, images):
    return predictor.predict([predictor.load_image(images[0])])[0]


@pytest.fixture
def served():
    """Serves a `Site` at a free port; returns the server, which has a `url`."""
    from melanoma_lib.inference import app, security

    servers = []

    def serve(site):
        servers.append(app.Server(site, security.listen("127.0.0.1", None)))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


@pytest.fixture
def page(predictor, served):
    """The page of one model without a login; returns its site and `post(path, data, **headers)`."""
    from melanoma_lib.inference import app

    site = app.WebPage([predictor])
    url = served(site).url

    def post(path, data=b"", **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.post(url + path, data=data, headers=named, timeout=60)

    site.url = url
    return site, post
