// How the probe speaks: one answer a line, as a row of a Markdown table; and how it measures.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <stdexcept>
#include <string>

#include "absl/strings/string_view.h"

namespace shoestring::probe {

// "| item | question | answer |", at once: a probe that dies leaves what it knew.
void Answer(absl::string_view item, absl::string_view question, absl::string_view answer);
// "812 TFLOP/s"; the unit says what value is.
std::string Figure(double value, absl::string_view unit);

// What a call that must not fail says when it does; ends the item, not the probe.
class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};
void CheckCuda(cudaError_t error, const char* what);

// Device memory for the life of the object; throws Failure when there is too little.
class Buffer {
 public:
  explicit Buffer(size_t bytes);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&&) = delete;
  template <typename T = void>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_;
};

// Median milliseconds of one call of `enqueue`, over `rounds` rounds of as many calls as take about 20 ms, after a
// warm-up; timed by events on `stream`.
double MedianMs(cudaStream_t stream, const std::function<void()>& enqueue, int rounds = 7);

// --- the items ------------------------------------------------------------------------------------------------------
void ProbeDevice();
void ProbeCopy();
void ProbeCublasLt();
void ProbeAttention();
void ProbeNcclOne();
void ProbeNcclLsa();

}  // namespace shoestring::probe
