import pytest

from anymodal.config.params import Params
from anymodal.report.page import render
from helpers.results import report_inputs


@pytest.fixture(scope="session")
def typical():
    """Results of a typical run."""
    return report_inputs()


@pytest.fixture(scope="session")
def typical_page(typical):
    """The typical run's page, of commit 0123abc."""
    return render(typical, Params(), "0123abc")
