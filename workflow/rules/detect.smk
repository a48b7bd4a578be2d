if CONFIG.detection.backend == "provided":

    rule detect:
        """Triangulate the levels that the user has marked in a shot's views."""
        input:
            cameras=RESULTS / "patients/{patient}/{shot}/cameras.json",
            boxes=boxes,
        output:
            levels=RESULTS / "patients/{patient}/{shot}/levels.json",
        log:
            "logs/{patient}/{shot}/detect.log",
        conda:
            "../envs/radgs.yaml"
        threads: 1
        resources:
            mem_mb=1000,
        params:
            images=lambda wildcards: {
                v: x["image"] for v, x in views(wildcards).items()
            },
            settings=settings("detection"),
            code=code("images"),
        script:
            "../scripts/detect_provided.py"

else:

    rule simulate_radiographs:
        """Simulate whole X-rays of a patient, with the box of every vertebra in them."""
        input:
            ct=RESULTS / "patients/{patient}/ct.nii.gz",
            vertebrae=RESULTS / "patients/{patient}/vertebrae.nii.gz",
            audit=RESULTS / "patients/{patient}/vertebrae.json",
        output:
            radiographs=RESULTS / "simulation/{patient}/radiographs.h5",
        log:
            "logs/{patient}/simulate_radiographs.log",
        conda:
            "../envs/radgs.yaml"
        threads: 2
        resources:
            mem_mb=4000,
        params:
            levels=levels,
            settings=settings("simulation", "seed"),
            shots=CONFIG.detection.yolo.shots,
            image_px=CONFIG.detection.yolo.image_px,
            code=code("simulation"),
        script:
            "../scripts/simulate_radiographs.py"

    rule train_detector:
        """Teach a small YOLO network to find and name this patient's vertebrae."""
        input:
            radiographs=RESULTS / "simulation/{patient}/radiographs.h5",
        output:
            weights=RESULTS / "models/detector/{patient}/detector.safetensors",
            card=RESULTS / "models/detector/{patient}/card.json",
        log:
            "logs/{patient}/train_detector.log",
        conda:
            "../envs/detect.yaml"
        threads: 2
        resources:
            mem_mb=4000,
        params:
            settings=settings("detection", "seed"),
            code=code("simulation"),
        script:
            "../scripts/train_detector.py"

    rule detect:
        """Find and name the levels in a shot's views, and lay the CT's vertebrae on them."""
        input:
            xrays=RESULTS / "patients/{patient}/{shot}/xrays.nii.gz",
            cameras=RESULTS / "patients/{patient}/{shot}/cameras.json",
            ct=RESULTS / "patients/{patient}/ct.nii.gz",
            vertebrae=RESULTS / "patients/{patient}/vertebrae.nii.gz",
            weights=RESULTS / "models/detector/{patient}/detector.safetensors",
            card=RESULTS / "models/detector/{patient}/card.json",
        output:
            levels=RESULTS / "patients/{patient}/{shot}/levels.json",
        log:
            "logs/{patient}/{shot}/detect.log",
        conda:
            "../envs/detect.yaml"
        threads: 1
        resources:
            mem_mb=4000,
        params:
            settings=settings("detection"),
            code=code("anatomy"),
        script:
            "../scripts/detect_trained.py"
