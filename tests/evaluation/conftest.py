"""What the tests of the evaluation share."""

import pytest

from tests.support import evaluation_nets as nets


@pytest.fixture(scope="session")
def net():
    """A normal digits model."""
    return nets.trained()


@pytest.fixture(scope="session")
def images():
    """60 test images of the digits."""
    return nets.digits(count=60)


@pytest.fixture(scope="session")
def digit_images():
    """All test images of the digits."""
    return nets.digits()
