// Rotary positions on the GPU.
#include "kernels/cuda/cuda_operations.h"
#include "kernels/cuda/device.cuh"

namespace shoestring {
namespace {

constexpr int kThreads = 256;
constexpr int kPairs = kChunk / 2;

struct RopeCall {
  OutRows x;
  int64_t rows, heads, head_stride, offset, pairs, positions_end;
  const float *cosines, *sines;
  int64_t cos_stride, sin_stride;
  const int32_t* positions;
  float sign;
};

// A thread turns four pairs: (a, b) by the angle whose cosine and sine are given: (a c - b s, a s + b c).
template <typename T, bool kVector>
__global__ void __launch_bounds__(kThreads) RopeKernel(RopeCall call) {
  // 32 bits: a division of 64 costs more than all the rest.
  const uint32_t quads = static_cast<uint32_t>(DivideUp(call.pairs, kPairs));
  const uint32_t of_row = static_cast<uint32_t>(call.heads) * quads;
  const uint32_t index = blockIdx.x * kThreads + threadIdx.x;
  const uint32_t in_row = index % of_row;
  const int64_t row = index / of_row;
  if (row >= call.rows) return;
  const int64_t head = in_row / quads, first = int64_t{in_row % quads} * kPairs;
  const int64_t position = call.positions[row];
  DEVICE_CHECK(position >= 0 && position < call.positions_end);
  const float* cosines = call.cosines + position * call.cos_stride + first;
  const float* sines = call.sines + position * call.sin_stride + first;
  T* x = reinterpret_cast<T*>(call.x.data) + row * call.x.stride + head * call.head_stride + call.offset + 2 * first;
  const int pairs = static_cast<int>(min(int64_t{kPairs}, call.pairs - first));
  float v[kChunk], turned[kChunk];
  LoadChunk<kVector>(x, 2 * pairs, v);
#pragma unroll
  for (int j = 0; j < kPairs; ++j) {
    const float c = j < pairs ? cosines[j] : 0.0f, s = j < pairs ? sines[j] * call.sign : 0.0f;
    turned[2 * j] = v[2 * j] * c - v[2 * j + 1] * s;
    turned[2 * j + 1] = v[2 * j] * s + v[2 * j + 1] * c;
  }
  StoreChunk<kVector>(x, 2 * pairs, turned);
}

}  // namespace

void CudaRope(CudaStream& stream, const RopeArgs& args) {
  const int64_t pairs = args.cos_table.cols;
  if (args.x.rows == 0 || pairs == 0) return;
  const RopeCall call = {OutOf(args.x),
                         args.x.rows,
                         args.heads,
                         args.head_stride,
                         args.offset,
                         pairs,
                         args.cos_table.rows,
                         args.cos_table.as<float>(),
                         args.sin_table.as<float>(),
                         args.cos_table.stride,
                         args.sin_table.stride,
                         args.positions.as<int32_t>(),
                         args.inverse ? -1.0f : 1.0f};
  const View stripes(args.x.data + BytesOf(args.x.dtype, args.offset), args.x.dtype, args.x.rows, 2 * pairs,
                     std::max(args.x.stride, 2 * pairs));
  const bool vector = AllowsVectors(stripes) && args.head_stride * SizeOf(args.x.dtype) % 16 == 0;
  const int64_t threads = args.x.rows * args.heads * DivideUp(pairs, kPairs);
  CHECK_LT(threads, int64_t{1} << 31);
  WithActivation(args.x.dtype, [&](auto act) {
    WithBool(vector, [&](auto is_vector) {
      RopeKernel<decltype(act), is_vector><<<DivideUp(threads, kThreads), kThreads, 0, stream.get()>>>(call);
    });
  });
  CUDA_CHECK_LAUNCH();
}

}  // namespace shoestring
