"""The first-party components, registered through the same hooks as everybody else's."""

from __future__ import annotations

from collections.abc import Mapping

from basereward.hookspecs import hookimpl


@hookimpl
def basereward_backbones() -> Mapping[str, str]:
    """Any decoder for text, Qwen-VL, InternVL, LLaVA-OneVision, and a small one for trying things out."""
    return {
        "causal-lm": "basereward.backbones.causal_lm:CausalLM",
        "internvl": "basereward.backbones.internvl:InternVL",
        "llava-onevision": "basereward.backbones.llava_onevision:LlavaOnevision",
        "qwen-vl": "basereward.backbones.qwen_vl:QwenVL",
        "tiny": "basereward.backbones.tiny:Tiny",
    }


@hookimpl
def basereward_heads() -> Mapping[str, str]:
    """Perceptrons on each response's hidden state."""
    return {"linear": "basereward.heads:Linear", "mlp": "basereward.heads:MLP"}


@hookimpl
def basereward_losses() -> Mapping[str, str]:
    """Losses on pairs, on rankings and on ratings."""
    return {
        "binary-cross-entropy": "basereward.losses:BinaryCrossEntropy",
        "bradley-terry": "basereward.losses:BradleyTerry",
        "hinge": "basereward.losses:Hinge",
        "plackett-luce": "basereward.losses:PlackettLuce",
        "regression": "basereward.losses:Regression",
    }


@hookimpl
def basereward_ensemblers() -> Mapping[str, str]:
    """Ways to join the rewards of several models."""
    return {
        "accuracy-weighted": "basereward.ensemblers:AccuracyWeighted",
        "confidence-weighted": "basereward.ensemblers:ConfidenceWeighted",
        "mean": "basereward.ensemblers:Mean",
        "mean-minus-std": "basereward.ensemblers:MeanMinusStd",
        "median": "basereward.ensemblers:Median",
        "min": "basereward.ensemblers:Min",
        "rank-mean": "basereward.ensemblers:RankMean",
        "routed": "basereward.ensemblers:Routed",
        "stacked": "basereward.ensemblers:Stacked",
        "z-mean": "basereward.ensemblers:ZMean",
    }


@hookimpl
def basereward_paradigms() -> Mapping[str, str]:
    """Ways to make a reward of a backbone."""
    return {
        "critic": "basereward.paradigms.critic:Critic",
        "generative": "basereward.paradigms.generative:Generative",
        "joint": "basereward.paradigms.joint:Joint",
        "listwise": "basereward.paradigms.listwise:Listwise",
        "pointwise": "basereward.paradigms.pointwise:Pointwise",
        "scalar": "basereward.paradigms.scalar:Scalar",
        "steps": "basereward.paradigms.steps:Steps",
    }


@hookimpl
def basereward_datasets() -> Mapping[str, str]:
    """Published preference data sets, and formats of one's own."""
    return {
        "alpaca": "basereward.data.pair_layouts:AlpacaPairs",
        "axolotl": "basereward.data.pair_layouts:AxolotlPairs",
        "basereward": "basereward.data.native:NativeDataset",
        "helpsteer": "basereward.data.published.ratings:HelpSteer",
        "ixc": "basereward.data.published.conversations:IXC",
        "llava-critic": "basereward.data.published.judgements:LLaVACritic",
        "mm-rlhf": "basereward.data.published.mm_rlhf:MMRLHF",
        "mmif": "basereward.data.published.conversations:MMIF",
        "mmpr": "basereward.data.published.mmpr:MMPR",
        "ms-swift": "basereward.data.pair_layouts:MSSwiftPairs",
        "olmo2": "basereward.data.published.pairs:Olmo2",
        "omnialign-v-dpo": "basereward.data.published.pairs:OmniAlignVDPO",
        "openrlhf": "basereward.data.published.conversations:OpenRLHF",
        "orca": "basereward.data.pair_layouts:OrcaPairs",
        "povid": "basereward.data.published.conversations:POVID",
        "r1-reward-rl": "basereward.data.published.judgements:R1RewardRL",
        "rlaif-v": "basereward.data.published.pairs:RLAIFV",
        "rlhf-v": "basereward.data.published.pairs:RLHFV",
        "sharegpt": "basereward.data.published.conversations:ShareGPT",
        "shp": "basereward.data.published.pairs:SHP",
        "skywork-reward": "basereward.data.published.pairs:SkyworkReward",
        "swe-arena": "basereward.data.published.battles:SWEArena",
        "trl": "basereward.data.trl:TRLDataset",
        "trl-stepwise": "basereward.data.steps:StepwiseDataset",
        "tulu3-if": "basereward.data.published.pairs:Tulu3IF",
        "ultrafeedback": "basereward.data.published.ratings:UltraFeedback",
        "vlfeedback": "basereward.data.published.ratings:VLFeedback",
        "wildchat": "basereward.data.published.pairs:WildChat",
        "wildvision-battle": "basereward.data.published.conversations:WildVisionBattle",
    }


@hookimpl
def basereward_benchmarks() -> Mapping[str, str]:
    """Published test sets, and anybody's own."""
    package = "basereward.evaluation.benchmarks"
    return {
        "comparisons": f"{package}.comparisons:Comparisons",
        "mm-rlhf-rewardbench": f"{package}.mm_rlhf_rewardbench:MMRLHFRewardBench",
        "multimodal-rewardbench": f"{package}.multimodal_rewardbench:MultimodalRewardBench",
        "multimodal-rewardbench2": f"{package}.multimodal_rewardbench2:MultimodalRewardBench2",
        "omni-rewardbench": f"{package}.omni_rewardbench:OmniRewardBench",
        "rewardbench": f"{package}.rewardbench:RewardBench",
        "rewardbench2": f"{package}.rewardbench2:RewardBench2",
        "rm-bench": f"{package}.rm_bench:RMBench",
        "visualprocessbench": f"{package}.visualprocessbench:VisualProcessBench",
        "vlrmbench": f"{package}.vlrmbench:VLRMBench",
        "videorewardbench": f"{package}.videorewardbench:VideoRewardBench",
        "vl-rewardbench": f"{package}.vl_rewardbench:VLRewardBench",
    }


@hookimpl
def basereward_writers() -> Mapping[str, str]:
    """Ways to have texts written: by a model in this process, and by a server."""
    return {
        "endpoint": "basereward.writers.endpoint:Endpoint",
        "own": "basereward.writers.local_model:LocalModel",
    }
