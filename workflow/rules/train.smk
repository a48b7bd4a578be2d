# Each stage (stages.smk) trains RecM, then RegM, then both together.
if not POPULATION:

    rule pass_on_p1:
        """No population is configured: the pretrained weights, or random ones, go on unchanged."""
        input:
            initial=PRETRAINED,
        output:
            expand(P1 / "{file}", file=MODEL_FILES),
        log:
            "logs/pass_on_p1.log",
        conda:
            "../envs/radgs.yaml"
        threads: 1
        resources:
            mem_mb=1000,
        params:
            stage="p1",
            reason="no population is configured (population.sheet)",
            settings=settings("network", "seed"),
            code=code("training"),
        script:
            "../scripts/pass_on.py"


if not FOLDS:

    rule pass_on_p2:
        """Real X-rays are not to be learned from: the weights of P1 go on unchanged, and the card says so."""
        input:
            initial=P1 / "card.json",
        output:
            expand(RESULTS / "models/p2/{file}", file=MODEL_FILES),
        log:
            "logs/pass_on_p2.log",
        conda:
            "../envs/radgs.yaml"
        threads: 1
        resources:
            mem_mb=1000,
        params:
            stage="p2",
            reason="no real X-rays are to be learned from (real.folds)",
            settings=settings("network", "seed"),
            code=code("training"),
        script:
            "../scripts/pass_on.py"


rule train_recm:
    """Teach RecM to reconstruct vertebrae and to see where they are."""
    input:
        unpack(training_data),
        initial=first_weights,
    output:
        weights=RESULTS / "models/{stage}/recm/recm.safetensors",
        card=RESULTS / "models/{stage}/recm/card.json",
    log:
        "logs/{stage}/train_recm.log",
    conda:
        "../envs/radgs.yaml"
    threads: training_threads
    resources:
        mem_mb=4000,
    params:
        levels=trained_levels,
        level=trained_level,
        changes=stage_changes,
        settings=stage_settings,
        code=code("training"),
    script:
        "../scripts/train.py"


rule train_regm:
    """Teach RegM to register vertebrae to their reconstructions."""
    input:
        unpack(training_data),
        recm=RESULTS / "models/{stage}/recm/recm.safetensors",
        initial=first_weights,
    output:
        weights=RESULTS / "models/{stage}/regm/regm.safetensors",
        card=RESULTS / "models/{stage}/regm/card.json",
    log:
        "logs/{stage}/train_regm.log",
    conda:
        "../envs/radgs.yaml"
    threads: training_threads
    resources:
        mem_mb=4000,
    params:
        levels=trained_levels,
        level=trained_level,
        changes=stage_changes,
        settings=stage_settings,
        code=code("training"),
    script:
        "../scripts/train.py"


rule train_joint:
    """Train both networks together through the voxelizer."""
    input:
        unpack(training_data),
        recm=RESULTS / "models/{stage}/recm/recm.safetensors",
        regm=RESULTS / "models/{stage}/regm/regm.safetensors",
    output:
        recm=RESULTS / "models/{stage}/joint/recm.safetensors",
        regm=RESULTS / "models/{stage}/joint/regm.safetensors",
        card=RESULTS / "models/{stage}/joint/card.json",
    log:
        "logs/{stage}/train_joint.log",
    conda:
        "../envs/radgs.yaml"
    threads: training_threads
    resources:
        mem_mb=4000,
    params:
        levels=trained_levels,
        level=trained_level,
        changes=stage_changes,
        settings=stage_settings,
        code=code("training"),
    script:
        "../scripts/train.py"
