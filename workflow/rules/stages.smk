# What a stage of training learns from, and where its weights come from. Stages are named by their folders under models:
# p1, p2/{fold}, p3/{patient} (or p3/{patient}/{level}, a network for each level) and ablation/{row}.
MODEL_FILES = ["recm.safetensors", "regm.safetensors", "card.json"]
PRETRAINED = CONFIG.pretrained / "card.json" if CONFIG.pretrained else []
P1 = RESULTS / ("models/p1/joint" if POPULATION else "models/p1")
SHARDS = expand(
    RESULTS / "simulation/population/{subject}-{variant}.h5",
    variant=range(CONFIG.population.variants),
    subject=POPULATION,
)

try:
    FOLDS = real_folds(CONFIG, PATIENTS, XRAYS)
    ABLATION = ablation_rows(CONFIG)
except ConfigError as error:
    raise SystemExit(f"radgs: {error}")
TRAINED_FOLDS = [fold for fold, one in FOLDS.items() if one.learned]
EMPTY_FOLDS = [fold for fold, one in FOLDS.items() if not one.learned]
ABLATED = CONFIG.ablation.patient or next(iter(PATIENTS))
STAGES = [
    "p1",
    *(f"p2/{fold}" for fold in TRAINED_FOLDS),
    *(f"p3/{patient}(/[A-Z][0-9]+)?" for patient in PATIENTS),
    *(f"ablation/{row}" for row in ABLATION),
]


wildcard_constraints:
    patient="|".join(PATIENTS),
    shot="[A-Za-z0-9-]+",
    level="[A-Z][0-9]+",
    fold="|".join(FOLDS) or "none",
    row="|".join(ABLATION) or "none",
    stage="|".join(STAGES),


def stage_kind(wildcards):
    return wildcards.stage.split("/")[0]


def stage_config(wildcards):
    """The settings of a stage: the run's, or those of a row of the ablation."""
    if stage_kind(wildcards) == "ablation":
        return ABLATION[wildcards.stage.split("/")[1]].config
    return CONFIG


def stage_changes(wildcards):
    if stage_kind(wildcards) == "ablation":
        return ABLATION[wildcards.stage.split("/")[1]].changes
    return {}


def stage_settings(wildcards):
    section = {"p1": "population", "p2": "real"}.get(stage_kind(wildcards), "training")
    dumped = stage_config(wildcards).model_dump(mode="json")
    return {name: dumped[name] for name in ("network", section, "seed")}


def training_threads(wildcards):
    """Rows of the ablation do not wait for each other: one thread each, side by side, is the fastest."""
    return 1 if stage_kind(wildcards) == "ablation" else 2


def trained_patient(wildcards):
    return (
        ABLATED
        if stage_kind(wildcards) == "ablation"
        else wildcards.stage.split("/")[1]
    )


def trained_levels(wildcards):
    """The levels of a patient's files that a stage reads."""
    if stage_kind(wildcards) in ("p1", "p2"):
        return []
    return patient_levels(PATIENTS[trained_patient(wildcards)], CONFIG)


def trained_level(wildcards):
    """The one level that a stage learns of, if it is one."""
    parts = wildcards.stage.split("/")
    return parts[2] if len(parts) == 3 else None


def training_data(wildcards):
    if stage_kind(wildcards) == "p1":
        return {"shards": SHARDS}
    if stage_kind(wildcards) == "p2":
        fold = FOLDS[wildcards.stage.split("/")[1]]
        return {"shards": expand(RESULTS / "real/{patient}.h5", patient=fold.learned)}
    return patient_data(trained_patient(wildcards), trained_levels(wildcards))


def patient_data(patient, levels):
    files = RESULTS / "patients" / patient
    return {
        "pairs": RESULTS / f"simulation/{patient}/pairs.h5",
        "excess": expand(files / "crops/{level}_excess.nii.gz", level=levels),
        "anchors": expand(files / "anchors/{level}.ply", level=levels),
    }


def p2_card(patient):
    """The weights of P2 that know nothing of the real X-rays of a patient."""
    if not FOLDS:
        return RESULTS / "models/p2/card.json"
    fold = next(name for name, fold in FOLDS.items() if patient in fold.held_out)
    return RESULTS / f"models/p2/{fold}/joint/card.json"


def first_weights(wildcards):
    """What a stage starts from: weights that ship or that a user names, then the stage before."""
    kind = stage_kind(wildcards)
    if kind == "p1":
        return PRETRAINED
    if kind == "p2":
        return P1 / "card.json"
    start = stage_config(wildcards).pretrained
    if kind == "ablation" and start != CONFIG.pretrained:
        return start / "card.json" if start else []
    return p2_card(trained_patient(wildcards))


def stage_cards(patient):
    """Name and card of every stage behind a patient's networks, the first one first."""
    p1 = (
        ["models/p1/recm", "models/p1/regm", "models/p1/joint"]
        if POPULATION
        else ["models/p1"]
    )
    p2 = p2_card(patient).parent.relative_to(RESULTS)
    p2 = (
        [p2.parent / part for part in ("recm", "regm", "joint")]
        if p2.parent.name in TRAINED_FOLDS
        else [p2]
    )
    p3 = [
        f"models/{stage}/{part}"
        for stage in p3_stages(patient)
        for part in ("recm", "regm", "joint")
    ]
    return [RESULTS / folder / "card.json" for folder in (*p1, *p2, *p3)]


def p3_stages(patient):
    if CONFIG.training.networks == "patient":
        return [f"p3/{patient}"]
    return [
        f"p3/{patient}/{level}" for level in patient_levels(PATIENTS[patient], CONFIG)
    ]


def weights(patient, network):
    """Of all levels, or one file for each."""
    return expand(
        RESULTS / "models/{stage}/joint/{network}.safetensors",
        stage=p3_stages(patient),
        network=network,
    )


def real_shots(wildcards):
    return sorted(
        (shot, truth)
        for patient, shot, truth in with_truth()
        if patient == wildcards.patient
    )


def real_files(wildcards):
    folder = RESULTS / "patients" / wildcards.patient
    names = {
        "xrays": "xrays.nii.gz",
        "cameras": "cameras.json",
        "located": "levels.json",
    }
    return {
        key: [folder / shot / name for shot, _ in real_shots(wildcards)]
        for key, name in names.items()
    }
