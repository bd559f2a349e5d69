// Tensors for tests of operations: strided, poisoned before use, read and written as doubles; and the common fixture.
#pragma once

#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/rng.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_features.h"
#include "tests/kernels/cuda/cuda_for_tests.h"
#include "tests/kernels/cuda/mirror_backend.h"
#include "tests/kernels/reference/matrix.h"

namespace shoestring {

// Owns its bytes, all set to 0xFF at first (NaN in every float type, -1 in every integer type).
class TestTensor {
 public:
  TestTensor(DType dtype, int64_t rows, int64_t cols, int64_t gap = 0)
      : bytes_((rows * (cols + gap) + kMargin) * SizeOf(dtype), std::byte{0xFF}),
        view_(bytes_.data(), dtype, rows, cols, cols + gap) {}
  TestTensor(const TestTensor& other) : bytes_(other.bytes_), view_(other.view_) { view_.data = bytes_.data(); }
  TestTensor& operator=(const TestTensor&) = delete;

  View view() const { return view_; }
  operator View() const { return view_; }                // NOLINT(google-explicit-constructor): so that tests read well
  operator ConstView() const { return view_; }           // NOLINT(google-explicit-constructor)
  operator MutableOperand() const { return view_; }      // NOLINT(google-explicit-constructor)
  operator Operand() const { return ConstView(view_); }  // NOLINT(google-explicit-constructor)
  const std::vector<std::byte>& bytes() const { return bytes_; }
  void SetBytes(const std::vector<std::byte>& bytes) { std::memcpy(bytes_.data(), bytes.data(), bytes.size()); }

  double at(int64_t row, int64_t col) const {
    switch (view_.dtype) {
      case DType::kF32: return view_.as<float>(row)[col];
      case DType::kBF16: return static_cast<float>(view_.as<BF16>(row)[col]);
      case DType::kI32: return view_.as<int32_t>(row)[col];
      case DType::kI64: return static_cast<double>(view_.as<int64_t>(row)[col]);
      case DType::kE4M3:
      case DType::kE5M2: return static_cast<double>(static_cast<uint8_t>(view_.row_bytes(row)[col]));  // the code
      default: return view_.as<double>(row)[col];
    }
  }
  void set(int64_t row, int64_t col, double value) {
    switch (view_.dtype) {
      case DType::kF32: view_.as<float>(row)[col] = static_cast<float>(value); return;
      case DType::kBF16: view_.as<BF16>(row)[col] = BF16(static_cast<float>(value)); return;
      case DType::kI32: view_.as<int32_t>(row)[col] = static_cast<int32_t>(value); return;
      case DType::kI64: view_.as<int64_t>(row)[col] = static_cast<int64_t>(value); return;
      default: view_.as<double>(row)[col] = value;
    }
  }

  TestTensor& Fill(const std::function<double(int64_t row, int64_t col)>& f) {
    for (int64_t i = 0; i < view_.rows; ++i) {
      for (int64_t j = 0; j < view_.cols; ++j) set(i, j, f(i, j));
    }
    return *this;
  }
  // Normal numbers times `scale`.
  TestTensor& Random(uint64_t seed, double scale = 1) {
    const Rng rng(seed, RngPurpose::kTest, 0);
    return Fill([&](int64_t i, int64_t j) { return scale * rng.Normal(i * view_.cols + j); });
  }
  TestTensor& Fill(const reference::Matrix& from) {
    return Fill([&](int64_t i, int64_t j) { return from.at(i, j); });
  }
  reference::Matrix matrix() const {
    reference::Matrix out(view_.rows, view_.cols);
    for (int64_t i = 0; i < view_.rows; ++i) {
      for (int64_t j = 0; j < view_.cols; ++j) out.at(i, j) = at(i, j);
    }
    return out;
  }

  // Nothing but the view's own elements was written.
  bool GapsUntouched() const {
    const int64_t size = SizeOf(view_.dtype);
    for (int64_t i = 0; i < static_cast<int64_t>(bytes_.size()); ++i) {
      const int64_t element = i / size;
      const bool inside =
          view_.stride > 0 && element / view_.stride < view_.rows && element % view_.stride < view_.cols;
      if (!inside && bytes_[i] != std::byte{0xFF}) return false;
    }
    return true;
  }

 private:
  static constexpr int64_t kMargin = 64;  // elements behind the last row
  std::vector<std::byte> bytes_;
  View view_;
};

// |got - want| <= relative * |want| + absolute.
struct Tolerance {
  double relative = 0;
  double absolute = 0;
};
// Of a result that is computed in f32 and stored as `dtype`: half a unit in the last place of bf16 is 2^-9 of the
// value.
inline Tolerance ToleranceOf(DType dtype, double f32 = 4e-6) { return {dtype == DType::kBF16 ? 0x1p-8 : f32, f32}; }

inline void ExpectNear(const TestTensor& got, const reference::Matrix& want, Tolerance tolerance,
                       const std::string& what) {
  ASSERT_EQ(got.view().rows, want.rows) << what;
  ASSERT_EQ(got.view().cols, want.cols) << what;
  for (int64_t i = 0; i < want.rows; ++i) {
    for (int64_t j = 0; j < want.cols; ++j) {
      const double limit = tolerance.relative * std::abs(want.at(i, j)) + tolerance.absolute;
      ASSERT_LE(std::abs(got.at(i, j) - want.at(i, j)), limit)  // a NaN fails too
          << what << "[" << i << ", " << j << "] is " << got.at(i, j) << ", must be " << want.at(i, j);
    }
  }
  EXPECT_TRUE(got.GapsUntouched()) << what << ": written beside its elements";
}

enum class OpDevice {
  kCpu,
  kMirroredCpu,  // the CPU behind the copies that a GPU needs: so that these are tested everywhere
  kCuda,
};

struct OpCase {
  Isa isa;
  DType dtype;  // of activations
  OpDevice device = OpDevice::kCpu;
};

// Every level of the CPU, and the GPU if this build has code for one.
inline std::vector<OpCase> OpCases(std::vector<DType> dtypes = {DType::kF32, DType::kBF16}) {
  std::vector<OpCase> cases;
  for (DType dtype : dtypes) {
    for (Isa isa : SupportedIsas()) cases.push_back({isa, dtype});
    cases.push_back({DefaultIsa(), dtype, OpDevice::kMirroredCpu});
    if (CudaModuleIsBuilt()) cases.push_back({DefaultIsa(), dtype, OpDevice::kCuda});
  }
  return cases;
}

inline std::string OpCaseName(const testing::TestParamInfo<OpCase>& info) {
  const OpCase& c = info.param;
  const bool cpu = c.device == OpDevice::kCpu;
  const std::string device(cpu ? IsaName(c.isa) : c.device == OpDevice::kCuda ? "cuda" : "mirrored");
  return absl::StrCat(device, "_", Name(c.dtype));
}

// Runs an operation on one thread and on three, or twice on a GPU, and demands the same bits. Without a GPU its tests
// are skipped, and say why.
class OpTest : public testing::TestWithParam<OpCase> {
 protected:
  using RunFn = std::function<void(Backend& backend, Stream& stream)>;

  OpTest() {
    const OpCase& c = GetParam();
    if (c.device == OpDevice::kCuda) {
      for (std::unique_ptr<Backend>* backend : {&one_, &three_}) {
        absl::StatusOr<std::unique_ptr<Backend>> made = MirroredCudaForTests();
        if (made.ok()) *backend = *std::move(made);
        no_device_ = made.status();
      }
      return;
    }
    one_ = MakeCpuBackend({.threads = 1, .isa = c.isa});
    three_ = MakeCpuBackend({.threads = 3, .isa = c.isa, .spin = 0});
    if (c.device != OpDevice::kMirroredCpu) return;
    mirrored_ = std::move(three_);
    three_ = std::make_unique<MirrorBackend>(*mirrored_);
  }
  void SetUp() override { SKIP_WITHOUT_GPU(no_device_); }

  DType act() const { return GetParam().dtype; }

  void Run(const std::vector<TestTensor*>& outputs, const RunFn& run) {
    std::vector<std::vector<std::byte>> before;
    for (const TestTensor* output : outputs) before.push_back(output->bytes());
    RunOn(*three_, run);
    std::vector<std::vector<std::byte>> by_three;
    for (size_t i = 0; i < outputs.size(); ++i) {
      by_three.push_back(outputs[i]->bytes());
      outputs[i]->SetBytes(before[i]);
    }
    RunOn(*one_, run);
    for (size_t i = 0; i < outputs.size(); ++i) {
      EXPECT_TRUE(outputs[i]->bytes() == by_three[i]) << "output " << i << " depends on the number of threads";
    }
  }

  static void RunOn(Backend& backend, const RunFn& run) {
    const std::unique_ptr<Stream> stream = backend.MakeStream();
    run(backend, *stream);
    backend.Synchronize(*stream);
  }

  absl::Status no_device_;
  std::unique_ptr<Backend> mirrored_;
  std::unique_ptr<Backend> one_;
  std::unique_ptr<Backend> three_;
};

}  // namespace shoestring
