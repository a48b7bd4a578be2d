# Stage P2: X-rays of patients with known poses. The networks of a patient never learn from that patient's own.
rule real_pairs:
    """Cut a patient's vertebrae, whose true poses are known, out of the X-rays."""
    input:
        unpack(real_files),
        truth=lambda wildcards: [truth for _, truth in real_shots(wildcards)],
        excess=per_level("patients/{patient}/crops/{level}_excess.nii.gz"),
        mask=per_level("patients/{patient}/crops/{level}_mask.nii.gz"),
        anchors=per_level("patients/{patient}/anchors/{level}.ply"),
    output:
        shard=RESULTS / "real/{patient}.h5",
    log:
        "logs/{patient}/real_pairs.log",
    conda:
        "../envs/radgs.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        levels=levels,
        settings=settings("network", "crop", "detection"),
        code=code("training"),
    script:
        "../scripts/real_pairs.py"


if EMPTY_FOLDS:

    rule pass_on_fold:
        """No other patient has real X-rays with known poses: the weights of P1 go on unchanged."""
        input:
            initial=P1 / "card.json",
        output:
            expand(RESULTS / "models/p2/{{fold}}/joint/{file}", file=MODEL_FILES),
        log:
            "logs/pass_on_p2_{fold}.log",
        wildcard_constraints:
            fold="|".join(EMPTY_FOLDS),
        conda:
            "../envs/radgs.yaml"
        threads: 1
        resources:
            mem_mb=1000,
        params:
            stage="p2",
            reason="no other patient has X-rays with known poses",
            settings=settings("network", "seed"),
            code=code("training"),
        script:
            "../scripts/pass_on.py"
