rule evaluate:
    """Compare with the truth where it is known. No other rule may read it."""
    input:
        registrations=[
            RESULTS / f"patients/{p}/{s}/registrations.json"
            for p, s, _ in with_truth()
        ],
        truth=[truth for _, _, truth in with_truth()],
        vertebrae=[
            RESULTS / f"patients/{p}/vertebrae.nii.gz" for p in levels_with_truth()
        ],
        excess=[
            RESULTS / f"patients/{p}/crops/{level}_excess.nii.gz"
            for p, names in levels_with_truth().items()
            for level in names
        ],
    output:
        csv=report(
            RESULTS / "evaluation/registrations.csv",
            caption="../report/registrations.rst",
            category="Registrations",
        ),
        summary=RESULTS / "evaluation/summary.json",
    log:
        "logs/evaluate.log",
    conda:
        "../envs/radgs.yaml"
    threads: 1
    resources:
        mem_mb=3000,
    params:
        shots=with_truth(),
        patient_levels=levels_with_truth(),
        settings=settings("evaluation"),
        code=code("evaluation"),
    script:
        "../scripts/evaluate.py"
