// SPDX-License-Identifier: Apache-2.0
// Every kernel in the types it is launched with, so that nvcc says what registers and memory each takes; no torch.

#include "kernels/bt_loss.cuh"
#include "kernels/reward_head.cuh"

namespace basereward::simt {

#define INSTANTIATE(...) template __global__ void run<__VA_ARGS__>(const __VA_ARGS__)
INSTANTIATE(PairKernel<float>);
INSTANTIATE(PairKernel<double>);
INSTANTIATE(TotalKernel<float>);
INSTANTIATE(TotalKernel<double>);
INSTANTIATE(GradientKernel<float>);
INSTANTIATE(GradientKernel<double>);
INSTANTIATE(ScanKernel<float>);
INSTANTIATE(ScanKernel<double>);
INSTANTIATE(GatherKernel<float, float>);
INSTANTIATE(ScatterKernel<float, float>);
INSTANTIATE(NormKernel<float, float>);
INSTANTIATE(NormRowsKernel<float, float>);
INSTANTIATE(NormWeightKernel<float, float>);
INSTANTIATE(ColumnsKernel<float, float>);
INSTANTIATE(ColumnsKernel<double, double>);
INSTANTIATE(NormRowsKernel<double, double>);
INSTANTIATE(RewardKernel<Activation::kNone, float, float>);
INSTANTIATE(RewardKernel<Activation::kTanh, float, float>);
INSTANTIATE(RewardKernel<Activation::kSilu, float, float>);
INSTANTIATE(RewardKernel<Activation::kRelu, float, float>);
INSTANTIATE(SlopeKernel<Activation::kNone, float, float>);
INSTANTIATE(SlopeKernel<Activation::kTanh, float, float>);
INSTANTIATE(SlopeKernel<Activation::kSilu, float, float>);
INSTANTIATE(SlopeKernel<Activation::kRelu, float, float>);
INSTANTIATE(RewardKernel<Activation::kSilu, double, double>);
INSTANTIATE(SlopeKernel<Activation::kSilu, double, double>);

}  // namespace basereward::simt
