import pytest
from helpers import KEYS

from melanoma_lib.inference.predictor import Predictor


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
