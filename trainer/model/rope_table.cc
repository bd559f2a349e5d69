// Frequencies in double, tables rounded once to FP32.
#include "trainer/model/rope_table.h"

#include <algorithm>
#include <cmath>

#include "configs/resolve.h"

namespace shoestring {
namespace {

constexpr double kTwoPi = 6.283185307179586476925;

// The (fractional) channel pair that turns `rotations` times over the original length.
double PairOfRotations(const RopeSettings& s, int64_t rope, double rotations) {
  return static_cast<double>(rope) * std::log(s.original_length / (kTwoPi * rotations)) / (2 * std::log(s.theta));
}

}  // namespace

std::vector<double> RopeFrequencies(const RopeSettings& settings, int64_t rope) {
  std::vector<double> frequencies(rope / 2);
  for (int64_t j = 0; j < rope / 2; ++j) {
    frequencies[j] = std::pow(settings.theta, -2.0 * static_cast<double>(j) / static_cast<double>(rope));
  }
  if (settings.factor <= 1) return frequencies;
  const double low = std::max(std::floor(PairOfRotations(settings, rope, settings.beta_fast)), 0.0);
  double high = std::min(std::ceil(PairOfRotations(settings, rope, settings.beta_slow)), static_cast<double>(rope - 1));
  if (high == low) high += 0.001;  // a step instead of a ramp, without dividing by zero
  for (int64_t j = 0; j < rope / 2; ++j) {
    const double ramp = std::clamp((static_cast<double>(j) - low) / (high - low), 0.0, 1.0);
    frequencies[j] = frequencies[j] / settings.factor * ramp + frequencies[j] * (1 - ramp);
  }
  return frequencies;
}

double RopeAmplitude(const RopeSettings& settings) {
  return config::YarnTemperature(settings.factor, settings.mscale) /
         config::YarnTemperature(settings.factor, settings.mscale_all_dim);
}

double SoftmaxScale(const ModelShape& shape) {
  const double temperature = config::YarnTemperature(shape.rope_settings.factor, shape.rope_settings.mscale_all_dim);
  return temperature * temperature / std::sqrt(static_cast<double>(shape.nope + shape.rope));
}

RopeTable MakeRopeTable(Backend& backend, Stream& stream, Arena& arena, const ModelShape& shape) {
  const int64_t positions = shape.sequence_length;
  const int64_t pairs = shape.rope / 2;
  const std::vector<double> frequencies = RopeFrequencies(shape.rope_settings, shape.rope);
  const double amplitude = RopeAmplitude(shape.rope_settings);
  std::vector<float> cos_host(positions * pairs);
  std::vector<float> sin_host(positions * pairs);
  for (int64_t p = 0; p < positions; ++p) {
    for (int64_t j = 0; j < pairs; ++j) {
      const double angle = static_cast<double>(p) * frequencies[j];
      cos_host[p * pairs + j] = static_cast<float>(amplitude * std::cos(angle));
      sin_host[p * pairs + j] = static_cast<float>(amplitude * std::sin(angle));
    }
  }
  RopeTable table;
  table.cos = arena.Allocate(Purpose::kData, "rope.cos", DType::kF32, positions, pairs);
  table.sin = arena.Allocate(Purpose::kData, "rope.sin", DType::kF32, positions, pairs);
  backend.CopyFromHost(stream, cos_host.data(), table.cos);
  backend.CopyFromHost(stream, sin_host.data(), table.sin);
  backend.Synchronize(stream);
  return table;
}

}  // namespace shoestring
