// Writes the inputs that fuzzing starts from, with the program's own writers: one folder a target.
//
//   fuzz_seeds RECIPES DIR     RECIPES: configs/recipes
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/file_system.h"
#include "configs/hf_config.h"
#include "configs/load.h"
#include "data/bpe_train.h"
#include "data/pre_tokenizer.h"
#include "data/shard_writer.h"
#include "data/tokenizer.h"
#include "tests/fuzz/hf_input.h"
#include "tests/fuzz/memory_files.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/export/export_hf.h"
#include "trainer/export/hf_weights.h"
#include "trainer/export/weight_source.h"

namespace shoestring {
namespace {

constexpr size_t kMaxInputBytes = 16384;  // -max_len of tests/fuzz.sh: the fuzzer cuts what is longer

class Seeds {
 public:
  Seeds(FileSystem& fs, std::string directory) : fs_(fs), directory_(std::move(directory)) {}

  void Add(const std::string& target, const std::string& name, absl::string_view contents) {
    CHECK_LE(contents.size(), kMaxInputBytes);
    const std::string folder = JoinPath(directory_, target);
    CHECK(fs_.CreateDirectories(folder).ok());
    CHECK(WriteFile(fs_, JoinPath(folder, name), contents).ok());
  }

 private:
  FileSystem& fs_;
  const std::string directory_;
};

// As SplitInput in target.h reads it.
std::string TwoFilesInput(const std::string& first, const std::string& second) {
  CHECK_LT(first.size(), size_t{1} << 16);
  std::string input = {static_cast<char>(first.size() & 0xff), static_cast<char>(first.size() >> 8)};
  return input + first + second;
}

void AddConfigs(FileSystem& fs, const std::string& recipes, Seeds& seeds) {
  const auto names = fs.List(recipes);
  CHECK(names.ok());
  for (const std::string& name : *names) {
    if (!absl::EndsWith(name, ".textproto")) continue;
    const auto text = ReadFile(fs, JoinPath(recipes, name));
    CHECK(text.ok());
    seeds.Add("config", name, absl::StrCat("t", *text));
    const auto loaded = config::ParseConfig(*text, name);
    if (!loaded.ok()) continue;
    const auto hf = config::ExportHfConfig(loaded->config.model(), {});
    if (hf.ok()) seeds.Add("config", name + ".json", absl::StrCat("j", *hf));
  }
  int i = 0;
  for (const char* set : {"model.layers=4", "train.phase[0].steps=3", "train.phase+={steps: 5}", "data.source=[]",
                          "model.yarn={factor: 40}", "name=\"x\""}) {
    seeds.Add("config", absl::StrCat("set", i++), absl::StrCat("s", set));
  }
}

void AddShards(FileSystem& fs, const std::string& scratch, Seeds& seeds) {
  ShardMeta meta;
  meta.tokenizer_fingerprint = "t";
  meta.vocab_size = 300;
  meta.eos_id = 1;
  meta.plan = "plan";
  meta.sources = {{"a.txt", 12}};
  auto writer = ShardWriter::Create(fs, scratch, meta);
  CHECK(writer.ok());
  for (const std::vector<int32_t>& sequence : {std::vector<int32_t>{7, 8, 9, 1}, {299, 0, 1}, {5, 1}}) {
    CHECK((*writer)->AddSequence(sequence).ok());
    (*writer)->EndDocument();
  }
  const auto finished = (*writer)->Finish(3, 12);
  CHECK(finished.ok());
  const auto idx = ReadFile(fs, IdxPath(scratch));
  const auto bin = ReadFile(fs, BinPath(scratch));
  CHECK(idx.ok());
  CHECK(bin.ok());
  seeds.Add("shard", "three", TwoFilesInput(*idx, *bin));
  seeds.Add("shard_meta", "three", PrintShardMeta(*finished));
  for (const std::string& path : {IdxPath(scratch), BinPath(scratch), MetaPath(scratch)}) CHECK(fs.Remove(path).ok());
}

void AddTokenizers(Seeds& seeds) {
  WordCounts words;
  for (const char* word : {" the", " cat", " sat", " on", " mat", "the", " 123", "\n\n", " caf\xc3\xa9"})
    words[word] = 9;
  BpeTrainOptions options;
  options.special_tokens = {"<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"};
  options.vocab_size = 266;
  const auto spec = TrainBpe(words, options);
  CHECK(spec.ok());
  auto tokenizer = Tokenizer::Create(*spec);
  CHECK(tokenizer.ok());
  const std::string json = tokenizer->ToJson();
  seeds.Add("tokenizer", "small", TwoFilesInput(json, "the cat sat\n\non <｜end▁of▁sentence｜> caf\xc3\xa9 123!"));
}

void AddSafetensors(Seeds& seeds) {
  const std::vector<SafetensorsPlanEntry> entries = {
      {"a", DType::kF32, {2, 3}}, {"b.weight", DType::kBF16, {4}}, {"c", DType::kE4M3, {5}}};
  const SafetensorsPlan plan = PlanSafetensors(entries, {{"format", "pt"}});
  std::string file = plan.prefix;
  file.resize(plan.size_bytes, 'x');
  seeds.Add("safetensors", "three", file);
}

// Weights that are all 1, routing biases too.
class Ones final : public WeightSource {
 public:
  absl::StatusOr<DType> DTypeOfParameter(const Parameter&) override { return DType::kF32; }
  absl::Status Read(const Parameter&, int64_t, int64_t count, char* out) override {
    std::fill_n(reinterpret_cast<float*>(out), count, 1.0f);
    return absl::OkStatus();
  }
};

// As SplitHfInput reads it: with an index and FP8, and in one file of BF16.
void AddHf(FileSystem& fs, const std::string& scratch, Seeds& seeds) {
  for (const bool fp8 : {true, false}) {
    Ones ones;
    HfExport options;
    options.dtype = fp8 ? DType::kE4M3 : DType::kBF16;
    if (fp8) options.max_shard_bytes = 1000;
    const auto exported = ExportHf(fs, scratch, FuzzedHfModel(), ones, options);
    CHECK(exported.ok());
    CHECK_EQ(exported->files, fp8 ? 2 : 1);
    const auto read = [&](const char* name) {
      const auto text = ReadFile(fs, JoinPath(scratch, name));
      CHECK(text.ok());
      return *text;
    };
    const std::string index = fp8 ? read("model.safetensors.index.json") : "";
    const std::string weights =
        fp8 ? TwoFilesInput(read("model-00001-of-00002.safetensors"), read("model-00002-of-00002.safetensors"))
            : TwoFilesInput(read("model.safetensors"), "");
    const std::string input = TwoFilesInput(read("config.json"), TwoFilesInput(index, weights));
    MemoryFiles files(SplitHfInput(input));
    CHECK(HfWeights::Open(files, kHfDirectory, FuzzedHfModel(), {}).ok());
    seeds.Add("hf", fp8 ? "fp8" : "bf16", input);
    CHECK(RemoveRecursively(fs, scratch).ok());
  }
}

void AddManifests(Seeds& seeds) {
  checkpoint::Manifest manifest;
  manifest.set_format_version(kCheckpointFormatVersion);
  manifest.mutable_header()->set_step(100);
  manifest.set_block_bytes(4096);
  checkpoint::File& file = *manifest.add_files();
  file.set_name("a.safetensors");
  file.set_size_bytes(10000);
  file.set_block_sums(std::string(48, 's'));
  checkpoint::Tensor& tensor = *manifest.add_tensors();
  tensor.set_kind(checkpoint::Tensor::WEIGHTS);
  tensor.set_name("w");
  tensor.set_dtype("F32");
  checkpoint::Slice& slice = *tensor.add_slices();
  slice.set_file(0);
  for (const int64_t extent : {4, 6}) {
    tensor.add_shape(extent);
    slice.add_shape(extent);
    slice.add_offset(0);
  }
  manifest.set_state_sha256(std::string(32, 'd'));
  CHECK(ValidateManifest(manifest).ok());
  seeds.Add("manifest", "one", EncodeManifest(manifest));
}

}  // namespace
}  // namespace shoestring

int main(int argc, char** argv) {
  using namespace shoestring;  // NOLINT: this is main
  if (argc != 3) {
    std::fprintf(stderr, "usage: fuzz_seeds RECIPES DIR\n");
    return 64;
  }
  FileSystem& fs = PosixFileSystem();
  Seeds seeds(fs, argv[2]);
  AddConfigs(fs, argv[1], seeds);
  AddShards(fs, JoinPath(argv[2], "scratch"), seeds);
  AddTokenizers(seeds);
  AddSafetensors(seeds);
  AddHf(fs, JoinPath(argv[2], "scratch"), seeds);
  AddManifests(seeds);
  return 0;
}
