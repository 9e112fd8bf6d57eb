"""Results from what the command line names: a run's folder, a report's folder, or a JSON file.

Depends on runs and results. Invariant: a run that goes on is read as it is at the moment.
"""

from __future__ import annotations

from pathlib import Path

from model_store.evaluation.reports.run_report import REPORT, RESULTS, measure_run, results_of
from model_store.evaluation.results import Results, ResultsUnusable, read_results
from model_store.evaluation.runs.folder import RUN, open_run


def open_results(path: Path) -> Results:
    """The results of a run's folder, a report's folder or a file of either.

    Raises `ResultsUnusable`, `RunUnusable` and `OSError`.
    """
    if (path / RUN).exists():
        run = open_run(path)
        return results_of(run, measure_run(run))
    if path.is_dir():
        if not (path / RESULTS).exists():
            raise ResultsUnusable(f"{path} holds neither a run ({RUN}) nor a report ({RESULTS}).")
        return read_results(path / RESULTS)
    if path.name == REPORT:
        beside = path.with_name(RESULTS)
        if not beside.exists():
            raise ResultsUnusable(f"{path} has no values of queries: {RESULTS} beside it has them.")
        return read_results(beside)
    return read_results(path)
