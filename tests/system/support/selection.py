"""Which cases of a test with many always run; all of them do with POSEIDON_TEST_ALL (`scripts/test --all`)."""
import os

import pytest

ALL = "POSEIDON_TEST_ALL" in os.environ
ONLY_WITH_ALL = pytest.mark.skipif(not ALL, reason="runs with POSEIDON_TEST_ALL")


def often(cases, is_chosen):
    """Parameters for `parametrize`: tuples as several, everything else as one. `is_chosen` takes a case and its number."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=() if is_chosen(case, number) else ONLY_WITH_ALL)
            for number, case in enumerate(cases)]
