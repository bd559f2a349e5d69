// Rows, buffers and medians of the probe.
#include "tests/gpu/probe/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace shoestring::probe {

void Answer(absl::string_view item, absl::string_view question, absl::string_view answer) {
  const std::string text = absl::StrReplaceAll(answer, {{"|", "/"}, {"\n", "; "}});
  std::printf("| %s | %s | %s |\n", std::string(item).c_str(), std::string(question).c_str(), text.c_str());
  std::fflush(stdout);
}

std::string Figure(double value, absl::string_view unit) { return absl::StrFormat("%.4g %s", value, unit); }

void CheckCuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  throw Failure(absl::StrCat(what, ": ", cudaGetErrorName(error), ": ", cudaGetErrorString(error)));
}

Buffer::Buffer(size_t bytes) : bytes_(bytes) {
  const cudaError_t error = cudaMalloc(&data_, std::max<size_t>(bytes, 256));
  if (error != cudaSuccess) (void)cudaGetLastError();
  CheckCuda(error, absl::StrCat("taking ", bytes, " B").c_str());
}

Buffer::~Buffer() {
  if (data_ != nullptr) cudaFree(data_);
}

Buffer::Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}

double MedianMs(cudaStream_t stream, const std::function<void()>& enqueue, int rounds) {
  cudaEvent_t begin = nullptr, end = nullptr;
  CheckCuda(cudaEventCreate(&begin), "cudaEventCreate");
  CheckCuda(cudaEventCreate(&end), "cudaEventCreate");
  const auto round_ms = [&](int calls) {
    CheckCuda(cudaEventRecord(begin, stream), "cudaEventRecord");
    for (int i = 0; i < calls; ++i) enqueue();
    CheckCuda(cudaEventRecord(end, stream), "cudaEventRecord");
    CheckCuda(cudaEventSynchronize(end), "cudaEventSynchronize");
    float ms = 0;
    CheckCuda(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
    return static_cast<double>(ms);
  };
  round_ms(2);
  const double once = std::max(round_ms(2) / 2, 1e-3);
  const int calls = std::clamp(static_cast<int>(20 / once), 1, 500);
  std::vector<double> times;
  for (int i = 0; i < rounds; ++i) times.push_back(round_ms(calls) / calls);
  std::nth_element(times.begin(), times.begin() + rounds / 2, times.end());
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return times[rounds / 2];
}

}  // namespace shoestring::probe
