// Logits of the next token are those of training: of the documents before, a model with a mask sees nothing.
#include "launch/generation.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "configs/print.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "launch/run_observers.h"
#include "tests/base/temp_dir.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/checkpoint/load.h"

namespace shoestring {
namespace {

// The largest difference that another document before the prompt makes.
float EffectOfTheDocumentBefore(bool document_mask) {
  const TempDir dir;
  const config::RunConfig config = TinyConfig("FP32", absl::StrCat(R"(data {
    source { prefix: "train" weight: 1 } validation_prefix: "validation" tokenizer: "tokenizer.json"
    packing: CONCATENATE fim_rate: 0 token_split_rate: 0 document_mask: )",
                                                                   document_mask ? "true }" : "false }"));
  const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
  const auto trainer = Trainer::Create(config, FormulaData(config), *backend, RealClock(), {.max_steps = 2});
  CHECK(trainer.ok());
  const auto log = RunLog::Create(PosixFileSystem(), "/dev/null");
  checkpoint::SnapshotHeader header;
  header.set_config_textproto(config::CanonicalText(config));
  CheckpointObserver saver(PosixFileSystem(), dir.path(), config, header, **trainer, **log);
  (*trainer)->AddObserver(saver);
  CHECK((*trainer)->Run().ok());
  const auto checkpoint = FindNewest(PosixFileSystem(), dir.path());
  CHECK(checkpoint.ok());
  const auto generator = Generator::Load(PosixFileSystem(), *checkpoint, /*ema=*/false, /*threads=*/1);
  CHECK(generator.ok());
  const int32_t eos = config.model().eos_id();
  const auto logits = [&](std::vector<int32_t> ids) {
    const absl::Span<const float> found = (*generator)->NextLogits(ids);
    return std::vector<float>(found.begin(), found.end());
  };
  const std::vector<float> one = logits({7, 8, eos, 20, 21}), other = logits({33, 40, eos, 20, 21});
  float effect = 0;
  for (size_t i = 0; i < one.size(); ++i) effect = std::max(effect, std::abs(one[i] - other[i]));
  return effect;
}

TEST(GenerationTest, DocumentsBeforeThePromptAreSeenAsInTraining) {
  EXPECT_EQ(EffectOfTheDocumentBefore(/*document_mask=*/true), 0);
  EXPECT_GT(EffectOfTheDocumentBefore(/*document_mask=*/false), 0);
}

}  // namespace
}  // namespace shoestring
