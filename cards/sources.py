"""The papers that a model comes from, for its card."""

from ..zoo.spec import ModelSpec

_SC2 = (
    "Y. Matsubara, R. Yang, M. Levorato, S. Mandt, *SC2 Benchmark: Supervised Compression for "
    "Split Computing*, TMLR 2023, <https://openreview.net/forum?id=p28wv4G65d>"
)
_METHODS = {
    "entropic-student": (
        "Y. Matsubara, R. Yang, M. Levorato, S. Mandt, *Supervised Compression for "
        "Resource-Constrained Edge Computing Systems*, WACV 2022, "
        "<https://arxiv.org/abs/2108.11898>"
    ),
    "end-to-end": (
        "S. Singh, S. Abu-El-Haija, N. Johnston, J. Ballé, A. Shrivastava, G. Toderici, "
        "*End-to-end Learning of Compressible Features*, ICIP 2020, <https://arxiv.org/abs/2007.11797>"
    ),
    "shallow-injection": (
        "A. Furutanpey, P. Raith, S. Dustdar, *FrankenSplit: Efficient Neural Feature Compression "
        "with Shallow Variational Bottleneck Injection for Mobile Edge Computing*, IEEE "
        "Transactions on Mobile Computing 2024, <https://arxiv.org/abs/2302.10681>"
    ),
    "channel-reduction": (
        "Y. Matsubara, M. Levorato, *Neural Compression and Filtering for Edge-assisted Real-time "
        "Object Detection in Challenged Networks*, ICPR 2020, <https://arxiv.org/abs/2007.15818>"
    ),
}
_BALLE = (
    "J. Ballé, D. Minnen, S. Singh, S. J. Hwang, N. Johnston, *Variational Image Compression with "
    "a Scale Hyperprior*, ICLR 2018, <https://arxiv.org/abs/1802.01436>"
)
_MINNEN = (
    "D. Minnen, J. Ballé, G. Toderici, *Joint Autoregressive and Hierarchical Priors for Learned "
    "Image Compression*, NeurIPS 2018, <https://arxiv.org/abs/1809.02736>"
)
_CUI = (
    "Z. Cui, J. Wang, S. Gao, T. Guo, Y. Feng, B. Bai, *Asymmetric Gained Deep Image Compression "
    "With Continuous Rate Adaptation*, CVPR 2021, <https://arxiv.org/abs/2003.02012>"
)
_COMPRESSAI = (
    "J. Bégaint, F. Racapé, S. Feltman, A. Pushparaja, *CompressAI: a PyTorch library and "
    "evaluation platform for end-to-end compression research*, 2020, <https://arxiv.org/abs/2011.03029>"
)
_PRIORS = {
    "factorized-prior": (_BALLE,),
    "variable-rate": (_BALLE, _CUI),
    "entropy-bottleneck": (_BALLE,),
    "scale-hyperprior": (_BALLE,),
    "mean-scale-hyperprior": (_BALLE, _MINNEN),
    "bmshj2018-factorized": (_BALLE, _COMPRESSAI),
    "bmshj2018-hyperprior": (_BALLE, _COMPRESSAI),
    "mbt2018-mean": (_MINNEN, _COMPRESSAI),
    "mbt2018": (_MINNEN, _COMPRESSAI),
}
_TASKS = {
    "object-detection": (
        "S. Ren, K. He, R. Girshick, J. Sun, *Faster R-CNN: Towards Real-Time Object Detection "
        "with Region Proposal Networks*, NeurIPS 2015, <https://arxiv.org/abs/1506.01497>"
    ),
    "semantic-segmentation": (
        "L.-C. Chen, G. Papandreou, F. Schroff, H. Adam, *Rethinking Atrous Convolution for "
        "Semantic Image Segmentation*, 2017, <https://arxiv.org/abs/1706.05587>"
    ),
}


def list_sources(spec: ModelSpec) -> list[str]:
    """Return the papers of the benchmark and of a model's method, prior and task."""
    prior = getattr(spec.bottleneck, "architecture", spec.bottleneck.kind)
    found = [_SC2, _METHODS.get(spec.method), *_PRIORS.get(prior, ()), _TASKS.get(spec.task)]
    return [source for source in found if source]
