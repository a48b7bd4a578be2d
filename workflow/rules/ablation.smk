# snakemake ablation: each file of config/ablation is a row; all are measured on the same pairs, which none has seen.
if ABLATION:

    rule simulate_test:
        """Simulate pairs of the patient from another seed, to measure on."""
        input:
            ct=RESULTS / f"patients/{ABLATED}/ct.nii.gz",
            vertebrae=RESULTS / f"patients/{ABLATED}/vertebrae.nii.gz",
        output:
            pairs=RESULTS / "ablation/pairs.h5",
        log:
            "logs/ablation/simulate_test.log",
        conda:
            "../envs/radgs.yaml"
        threads: 2
        resources:
            mem_mb=4000,
        params:
            patient=ABLATED,
            levels=patient_levels(PATIENTS[ABLATED], CONFIG),
            changes={
                "seed": CONFIG.seed + 1,
                "simulation": {"pairs": CONFIG.ablation.pairs},
            },
            settings=settings("simulation", "network", "crop", "seed"),
            code=code("simulation"),
        script:
            "../scripts/simulate.py"

    rule measure_row:
        """Measure poses and reconstructions of a row's networks."""
        input:
            **patient_data(ABLATED, patient_levels(PATIENTS[ABLATED], CONFIG))
            | {"pairs": RESULTS / "ablation/pairs.h5"},
            recm=RESULTS / "models/ablation/{row}/joint/recm.safetensors",
            regm=RESULTS / "models/ablation/{row}/joint/regm.safetensors",
            card=RESULTS / "models/ablation/{row}/joint/card.json",
        output:
            csv=RESULTS / "ablation/{row}.csv",
        log:
            "logs/ablation/{row}.log",
        conda:
            "../envs/radgs.yaml"
        threads: 1
        resources:
            mem_mb=3000,
        params:
            levels=patient_levels(PATIENTS[ABLATED], CONFIG),
            code=code("evaluation"),
        script:
            "../scripts/measure_row.py"

    rule ablation:
        """The rows in one table and one figure."""
        input:
            measured=expand(RESULTS / "ablation/{row}.csv", row=ABLATION),
            cards=expand(
                RESULTS / "models/ablation/{row}/{part}/card.json",
                row=ABLATION,
                part=["recm", "regm", "joint"],
            ),
        output:
            table=RESULTS / "ablation/ablation.csv",
            figure=report(
                RESULTS / "ablation/ablation.png",
                caption="../report/ablation.rst",
                category="Ablation",
            ),
        log:
            "logs/ablation/table.log",
        conda:
            "../envs/radgs.yaml"
        threads: 1
        resources:
            mem_mb=1000,
        params:
            about={row: one.about for row, one in ABLATION.items()},
            code=code("report"),
        script:
            "../scripts/ablation.py"
