// Tables of the rotary position embedding, plain and with YaRN, and the softmax scale that goes with them.
#pragma once

#include <vector>

#include "kernels/arena.h"
#include "kernels/backend.h"
#include "trainer/model/shape.h"

namespace shoestring {

struct RopeTable {
  View cos;  // [S, rope / 2] f32
  View sin;  // [S, rope / 2] f32
};

// Angle a position advances by, one for each pair of channels: theta^(-2j/rope), slowed by YaRN's ramp between the
// channels that turn beta_fast and beta_slow times over the original length (arXiv 2309.00071, section 3.2; released
// DeepSeek-V3 inference code).
std::vector<double> RopeFrequencies(const RopeSettings& settings, int64_t rope);

// Factor of cos and sin: temperature(mscale) / temperature(mscale_all_dim); 1 in every released model.
double RopeAmplitude(const RopeSettings& settings);

// Multiplies q.k: (nope + rope)^-1/2, times the square of 0.1 * mscale_all_dim * ln(factor) + 1 under YaRN.
double SoftmaxScale(const ModelShape& shape);

// Allocates (purpose kData) and fills the tables for positions [0, S).
RopeTable MakeRopeTable(Backend& backend, Stream& stream, Arena& arena, const ModelShape& shape);

}  // namespace shoestring
