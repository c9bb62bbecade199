"""The ONNX operators a hub and its boards run: tensor arithmetic without state or strings.

Left out on purpose: loops, branches and scans (unbounded time), random numbers (no
repeatable work), sequences, optionals and strings, training, and every operator of a
domain that could load code.
"""

from __future__ import annotations

STANDARD = frozenset(
    """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization
    BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Celu CenterCropPad Clip
    Col2Im Compress Concat Constant ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh CumSum
    DFT DeformConv DepthToSpace DequantizeLinear Det Div Dropout DynamicQuantizeLinear Einsum Elu
    Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm
    GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample
    GroupNormalization HardSigmoid HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN LRN
    LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul
    MatMulInteger Max MaxPool MaxRoiPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg
    NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear
    RMSNormalization RNN Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
    ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence
    RoiAlign RotaryEmbedding Round ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh
    Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tan Tanh
    TensorScatter ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor Attention
    """.split()  # noqa: SIM905
)
"""Operators of the standard domain."""

MICROSOFT = frozenset(
    """
    Attention BiasAdd BiasGelu BiasSoftmax BiasSplitGelu ConvTransposeWithDynamicPads
    DequantizeLinear DynamicQuantizeMatMul EmbedLayerNormalization FastGelu FusedConv FusedGemm
    FusedMatMul FusedMatMulActivation GatherBlockQuantized Gelu GemmFloat8 GroupNorm
    GroupQueryAttention Inverse MatMulBnb4 MatMulInteger16 MatMulIntegerToFloat MatMulNBits
    MultiHeadAttention MurmurHash3 NhwcConv NhwcFusedConv NhwcMaxPool PackedAttention QAttention
    QGemm QLinearAdd QLinearAveragePool QLinearConcat QLinearConv QLinearGlobalAveragePool
    QLinearLeakyRelu QLinearMul QLinearReduceMean QLinearSigmoid QLinearSoftmax QLinearWhere
    QuantizeLinear QuickGelu RotaryEmbedding SimplifiedLayerNormalization
    SkipLayerNormalization SkipSimplifiedLayerNormalization TransposeMatMul Trilu
    """.split()  # noqa: SIM905
)
"""Operators of ``com.microsoft`` that ONNX Runtime's own optimiser and quantiser write."""
