"""The checks of `modelstacks verify`, which judge the answers of a deployed API wherever it runs.

    subject.py      what is verified: the API, its Plan, the held-out rows
    verdict.py      what a check found
    checks/         one file for each group of questions; discovered, not listed
    evidence.py     verdicts and exchanges as a document that can be kept

Nothing here knows the embedded cloud: the same requests go to it and to an AWS account.
"""
