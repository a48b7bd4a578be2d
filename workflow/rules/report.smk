rule report:
    """One page: how the runs ended, and pictures of each."""
    input:
        csv=RESULTS / "evaluation/registrations.csv",
        summary=RESULTS / "evaluation/summary.json",
        registrations=registered(),
        cards=sorted({card for p in PATIENTS for card in stage_cards(p)}),
    output:
        html=report(
            RESULTS / "report.html",
            caption="../report/page.rst",
            category="Registrations",
        ),
    log:
        "logs/report.log",
    conda:
        "../envs/radgs.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        shots=[(p, s) for p in PATIENTS for s in shots(p)],
        notes={p: row["note"] for p, row in PATIENTS.items()},
        stages={p: list(map(str, stage_cards(p))) for p in PATIENTS},
        settings=settings("report"),
        code=code("report"),
    script:
        "../scripts/report.py"
