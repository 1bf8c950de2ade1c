import runpy

from melanoma_lib.core.files import PROJECT


def test_the_page_of_findings_is_what_the_measurements_give():
    findings = runpy.run_path(str(PROJECT / "benchmarks" / "findings.py"))
    assert findings["page"]() == findings["PAGE"].read_text(encoding="utf-8")
