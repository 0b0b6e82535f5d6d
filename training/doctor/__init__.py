"""A data set examined before it is trained on: `python -m training.doctor DATA`.

Errors stop a run, warnings are likely mistakes, notes say what a run does about what was found.
"""

from training.doctor.examination import Examination, diagnose, examine
from training.doctor.finding import Finding, Severity, tell

__all__ = ["Examination", "Finding", "Severity", "diagnose", "examine", "tell"]
