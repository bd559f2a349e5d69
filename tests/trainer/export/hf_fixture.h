// What the tests of Hugging Face directories share: a small model with every mechanism, weights for it, a look at
// files.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/file_system.h"
#include "base/rng.h"
#include "configs/load.h"
#include "configs/print.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/checkpoint/snapshot.h"
#include "trainer/export/export_hf.h"
#include "trainer/export/import_hf.h"
#include "trainer/params.h"

namespace shoestring {

inline FileSystem& Fs() { return PosixFileSystem(); }

inline config::RunConfig SmallConfig(const std::vector<std::string>& overrides = {}) {
  std::vector<std::string> all = {"model.vocab_size=40",
                                  "model.layers=3",
                                  "model.hidden=16",
                                  "model.heads=2",
                                  "model.dense_ffn=24",
                                  "model.attention.q_lora_rank=6",
                                  "model.moe.routed_experts=4",
                                  "model.moe.active_experts=2",
                                  "model.moe.expert_ffn=5",
                                  "model.moe.groups=2",
                                  "model.moe.groups_kept=1"};
  all.insert(all.end(), overrides.begin(), overrides.end());
  auto loaded = config::LoadConfig(Fs(), {"configs/recipes/tiny_cpu.textproto"}, all);
  CHECK_EQ(loaded.status().ToString(), absl::OkStatus().ToString());
  return loaded->config;
}

// Memory for every parameter of a model.
class Weights {
 public:
  explicit Weights(const config::ModelConfig& model, DType dtype = DType::kF32) : table(BuildParameterTable(model)) {
    for (const Parameter& p : table) {
      auto& bytes = storage_[p.name];
      bytes.resize(static_cast<size_t>(p.elements() * SizeOf(dtype)));
      views[p.name] = View(bytes.data(), dtype, p.stack * p.rows, p.cols);
    }
  }
  // Values that BF16 must round, ties among them.
  void Fill() {
    uint64_t stream = 0;
    for (const Parameter& p : table) {
      const Rng rng(1, RngPurpose::kInit, ++stream);
      auto* values = views[p.name].as<float>();
      for (int64_t i = 0; i < p.elements(); ++i) {
        values[i] = i % 5 == 0 ? 1.0f + static_cast<float>(i % 7) / 256 : static_cast<float>(rng.Uniform(i) - 0.5);
      }
    }
  }
  std::string Bytes(const std::string& name) const {
    const View& view = views.at(name);
    return {reinterpret_cast<const char*>(view.data), static_cast<size_t>(view.bytes())};
  }
  // As a checkpoint of `run` has them; `this` must outlive it.
  Snapshot SnapshotOf(const config::RunConfig& run) const {
    Snapshot snapshot;
    snapshot.header.set_config_textproto(config::CanonicalText(run));
    for (const Parameter& p : table) {
      const std::vector<int64_t> shape =
          p.stack > 1 ? std::vector<int64_t>{p.stack, p.rows, p.cols} : std::vector<int64_t>{p.rows, p.cols};
      snapshot.tensors.push_back({p.trained ? StateKind::kWeights : StateKind::kBias, p.name, shape, views.at(p.name)});
    }
    return snapshot;
  }
  MemoryWeights Source() const { return MemoryWeights({views.begin(), views.end()}); }

  std::vector<Parameter> table;
  std::map<std::string, View> views;

 private:
  std::map<std::string, std::vector<std::byte>> storage_;
};

inline void Export(const std::string& directory, const config::ModelConfig& model, const Weights& weights,
                   const HfExport& options) {
  MemoryWeights source = weights.Source();
  const auto exported = ExportHf(Fs(), directory, model, source, options);
  ASSERT_TRUE(exported.ok()) << exported.status();
}

inline std::map<std::string, std::string> ShapesIn(const std::string& file) {
  const auto opened = SafetensorsFile::Open(Fs(), file);
  EXPECT_TRUE(opened.ok()) << opened.status();
  std::map<std::string, std::string> shapes;
  for (const SafetensorsEntry& entry : opened->header().entries) {
    shapes[entry.name] = entry.dtype;
    for (const int64_t dimension : entry.shape) absl::StrAppend(&shapes[entry.name], " ", dimension);
  }
  return shapes;
}

// A tensor as the bytes of a file, for tests that spoil one.
struct RawTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};
using RawTensors = std::map<std::string, RawTensor>;

// Of every *.safetensors in the directory.
inline RawTensors ReadRaw(const std::string& directory) {
  RawTensors tensors;
  const std::vector<std::string> names = *Fs().List(directory);
  for (const std::string& name : names) {
    if (name.find(".safetensors") == std::string::npos || name.find(".json") != std::string::npos) continue;
    const auto file = SafetensorsFile::Open(Fs(), JoinPath(directory, name));
    CHECK(file.ok());
    for (const SafetensorsEntry& entry : file->header().entries) {
      RawTensor& tensor = tensors[entry.name];
      tensor = {entry.dtype, entry.shape, std::string(static_cast<size_t>(entry.size_bytes), '\0')};
      CHECK(file->ReadAt(entry.offset, entry.size_bytes, tensor.bytes.data()).ok());
    }
  }
  return tensors;
}

// By the format's description alone: a length, a header, the bytes.
inline void WriteRaw(const std::string& path, const RawTensors& tensors) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    header[name] = {{"dtype", tensor.dtype},
                    {"shape", tensor.shape},
                    {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  const std::string text = header.dump();
  std::string file;
  for (int i = 0; i < 8; ++i) file += static_cast<char>(text.size() >> (8 * i) & 255);
  CHECK(WriteFile(Fs(), path, file + text + data).ok());
}

}  // namespace shoestring
