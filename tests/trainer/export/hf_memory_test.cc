// Weights go out and in piece by piece: neither way holds more than a small part of a model in memory.
#include <iostream>

#include "configs/print.h"
#include "gtest/gtest.h"
#include "tests/base/temp_dir.h"
#include "tests/trainer/export/hf_fixture.h"
#include "tests/trainer/export/peak_heap.h"

namespace shoestring {
namespace {

constexpr int64_t kLimitBytes = 12 << 20;

// Weights that no memory holds: element i is a function of i.
class FormulaWeights final : public WeightSource {
 public:
  absl::StatusOr<DType> DTypeOfParameter(const Parameter&) override { return DType::kF32; }
  absl::Status Read(const Parameter&, int64_t first, int64_t count, char* out) override {
    for (int64_t i = 0; i < count; ++i) {
      const float value = static_cast<float>((first + i) % 251 - 125) / 64;
      std::memcpy(out + i * 4, &value, 4);
    }
    return absl::OkStatus();
  }
};

// 20 million parameters; its largest tensors are 8 MB, and as FP32 it is some 80 MB.
config::RunConfig LargeConfig() {
  return SmallConfig({"model.vocab_size=4096", "model.hidden=512", "model.layers=2", "model.dense_ffn=1024",
                      "model.moe.routed_experts=16", "model.moe.expert_ffn=256", "model.attention.q_lora_rank=64"});
}

class HfMemoryTest : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(DTypes, HfMemoryTest, testing::Values(DType::kF32, DType::kBF16, DType::kE4M3),
                         [](const auto& info) { return std::string(Name(info.param)); });

TEST_P(HfMemoryTest, OutInAndOutAgain) {
  const config::RunConfig run = LargeConfig();
  int64_t model_bytes = 0;
  for (const Parameter& p : BuildParameterTable(run.model())) model_bytes += p.elements() * 4;
  ASSERT_GT(model_bytes, 6 * kLimitBytes);
  const TempDir dir;
  const auto measured = [&](const char* what, auto work) {
    RestartPeak();
    const int64_t before = HeapBytes();
    const absl::Status status = work();
    const int64_t peak = PeakHeapBytes() - before;
    ASSERT_TRUE(status.ok()) << status;
    std::cout << what << ": " << peak << " bytes at most, of a model of " << model_bytes << "\n";
    EXPECT_LT(peak, kLimitBytes) << what;
  };
  const HfExport options = {.dtype = GetParam(), .max_shard_bytes = 10'000'000};
  measured("export", [&] {
    FormulaWeights weights;
    return ExportHf(Fs(), dir.File("hf"), run.model(), weights, options).status();
  });
  checkpoint::SnapshotHeader header;
  header.set_config_textproto(config::CanonicalText(run));
  measured("import",
           [&] { return ImportHfCheckpoint(Fs(), dir.File("hf"), run, header, dir.File("checkpoints"), {}).status(); });
  measured("export of the checkpoint", [&] {
    return ExportCheckpointHf(Fs(), dir.File("checkpoints/step_0000000"), StateKind::kEma, dir.File("again"), options)
        .status();
  });
}

TEST(PeakHeapTest, SeesWhatIsHeld) {
  RestartPeak();
  const int64_t before = HeapBytes();
  { const std::vector<char> held(1 << 20); }
  EXPECT_GE(PeakHeapBytes() - before, 1 << 20);
  EXPECT_LT(HeapBytes() - before, 1 << 10);
}

}  // namespace
}  // namespace shoestring
