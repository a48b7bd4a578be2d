"""Model folders that TotalSegmentator accepts, of a small network that calls every voxel of bone one given vertebra."""

import json

import torch

_TRAINERS = {"292": "nnUNetTrainerNoMirroring", "803": "nnUNetTrainerNoMirroring"}


def write_weights(folder, dataset, name, spacing_mm, classes, bone):
    """One nnU-Net model, some 20 kB; its weights are set so that only HU decides.

    Args:
        folder: where TotalSegmentator looks for weights.
        dataset: its number, as text.
        name: the rest of the folder's name.
        spacing_mm: at which the model works.
        classes: by label, as in ``totalsegmentator.map_to_binary``.
        bone: the class that voxels above about 220 HU get.
    """
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    trainer = _TRAINERS.get(dataset, "nnUNetTrainer_4000epochs_NoMirroring")
    title = f"Dataset{dataset}_{name}"
    model = folder / title / f"{trainer}__nnUNetPlans__3d_fullres"
    (model / "fold_0").mkdir(parents=True)
    plans = _plans(title, spacing_mm)
    labels = {"background": 0, **{text: number for number, text in classes.items()}}
    about = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    (model / "plans.json").write_text(json.dumps(plans))
    (model / "dataset.json").write_text(json.dumps(about | {"overwrite_image_reader_writer": "NibabelIOWithReorient"}))
    configuration = PlansManager(plans).get_configuration("3d_fullres")
    network = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        1,
        len(labels),
        allow_init=True,
        deep_supervision=False,
    )
    checkpoint = {
        "network_weights": _threshold(network.state_dict(), labels[bone]),
        "trainer_name": trainer,
        "init_args": {"configuration": "3d_fullres"},
        "inference_allowed_mirroring_axes": None,
    }
    torch.save(checkpoint, model / "fold_0/checkpoint_final.pth")


def _threshold(weights, bone):
    """Channel 0 goes through the first convolution, the skip connection and the decoder; the last layer decides."""
    for tensor in weights.values():  # first all: some are the same tensor under two names
        tensor.zero_()
    for name, tensor in weights.items():
        if name.startswith("encoder.stages.0") and name.endswith("weight"):
            tensor[0, 0, 1, 1, 1] = 1
        elif name.startswith("decoder.stages.0") and name.endswith("weight"):
            tensor[0, tensor.shape[1] // 2, 1, 1, 1] = 1  # the skip's channels follow the upsampled ones
        elif name.startswith("decoder.seg_layers.0"):
            tensor[bone] = 10 if name.endswith("weight") else -4  # of (HU - 100) / 300
            if name.endswith("weight"):
                tensor[bone, 1:] = 0
    return weights


def _resampling(name, orders):
    return {
        f"resampling_fn_{name}": "resample_data_or_seg_to_shape",
        f"resampling_fn_{name}_kwargs": {
            "is_seg": name == "seg",
            "order": orders,
            "order_z": 0,
            "force_separate_z": None,
        },
    }


def _plans(title, spacing_mm):
    intensities = {"max": 3e3, "mean": 100.0, "median": 100.0, "min": -1e3, "std": 300.0}
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 2,
            "features_per_stage": [4, 8],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * 2,
            "strides": [[1, 1, 1], [2, 2, 2]],
            "n_conv_per_stage": [1, 1],
            "n_conv_per_stage_decoder": [1],
            "conv_bias": True,
            "norm_op": None,
            "norm_op_kwargs": None,
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [32, 32, 32],
        "median_image_size_in_voxels": [64] * 3,
        "spacing": [spacing_mm] * 3,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        **_resampling("data", 3),
        **_resampling("seg", 1),
        **_resampling("probabilities", 1),
        "batch_dice": False,
        "architecture": architecture,
    }
    return {
        "dataset_name": title,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [spacing_mm] * 3,
        "original_median_shape_after_transp": [64] * 3,
        "image_reader_writer": "NibabelIOWithReorient",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": intensities | {"percentile_00_5": -900.0, "percentile_99_5": 1500.0}
        },
        "configurations": {"3d_fullres": configuration},
    }
