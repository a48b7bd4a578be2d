rule pass_on:
    """Pass the weights of a stage without data (P1, P2) on unchanged; the card says so."""
    input:
        lambda wildcards: [] if wildcards.stage == "p1" else [RESULTS / "models/p1"],
    output:
        directory(RESULTS / "models/{stage}"),
    log:
        "logs/pass_on_{stage}.log",
    wildcard_constraints:
        stage="p1|p2",
    conda:
        "../envs/radgs.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        settings=settings("network", "seed"),
        code=code("training"),
    script:
        "../scripts/pass_on.py"


rule train_recm:
    """P3: teach RecM this patient's vertebrae."""
    input:
        pairs=RESULTS / "simulation/{patient}/pairs.h5",
        excess=per_level("patients/{patient}/crops/{level}_excess.nii.gz"),
        anchors=per_level("patients/{patient}/anchors/{level}.ply"),
        initial=RESULTS / "models/p2",
    output:
        weights=RESULTS / "models/p3/{patient}/recm/recm.safetensors",
        card=RESULTS / "models/p3/{patient}/recm/card.json",
    log:
        "logs/{patient}/train_recm.log",
    conda:
        "../envs/radgs.yaml"
    threads: 2
    resources:
        mem_mb=4000,
    params:
        levels=levels,
        settings=settings("network", "training", "seed"),
        code=code("training"),
    script:
        "../scripts/train_recm.py"


rule train_regm:
    """P3: teach RegM to register this patient's vertebrae to their reconstructions."""
    input:
        pairs=RESULTS / "simulation/{patient}/pairs.h5",
        excess=per_level("patients/{patient}/crops/{level}_excess.nii.gz"),
        anchors=per_level("patients/{patient}/anchors/{level}.ply"),
        recm=RESULTS / "models/p3/{patient}/recm/recm.safetensors",
        initial=RESULTS / "models/p2",
    output:
        weights=RESULTS / "models/p3/{patient}/regm/regm.safetensors",
        card=RESULTS / "models/p3/{patient}/regm/card.json",
    log:
        "logs/{patient}/train_regm.log",
    conda:
        "../envs/radgs.yaml"
    threads: 2
    resources:
        mem_mb=4000,
    params:
        levels=levels,
        settings=settings("network", "training", "seed"),
        code=code("training"),
    script:
        "../scripts/train_regm.py"


rule train_joint:
    """P3: train both networks together through the voxelizer."""
    input:
        pairs=RESULTS / "simulation/{patient}/pairs.h5",
        excess=per_level("patients/{patient}/crops/{level}_excess.nii.gz"),
        anchors=per_level("patients/{patient}/anchors/{level}.ply"),
        recm=RESULTS / "models/p3/{patient}/recm/recm.safetensors",
        regm=RESULTS / "models/p3/{patient}/regm/regm.safetensors",
    output:
        recm=RESULTS / "models/p3/{patient}/joint/recm.safetensors",
        regm=RESULTS / "models/p3/{patient}/joint/regm.safetensors",
        card=RESULTS / "models/p3/{patient}/joint/card.json",
    log:
        "logs/{patient}/train_joint.log",
    conda:
        "../envs/radgs.yaml"
    threads: 2
    resources:
        mem_mb=4000,
    params:
        levels=levels,
        settings=settings("network", "training", "seed"),
        code=code("training"),
    script:
        "../scripts/train_joint.py"
