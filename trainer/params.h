// The parameter table: every parameter of the model, once; allocation, initialisation, optimizer, sharding, checkpoint,
// export and budget iterate it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "configs/schema/model.pb.h"
#include "kernels/tensor.h"

namespace shoestring {

// Who holds a parameter: every rank of the dense data group, or the ranks of an expert group, cut along `stack`.
enum class MeshDomain { kDense, kExpert };
enum class Initializer { kNormal, kOnes, kZeros };

// A matrix [rows, cols], or a stack of equal matrices [stack, rows, cols] (one an expert), or a vector [1, cols].
//
// Names are Hugging Face's where one tensor there is one here; where a matrix is fused for speed the name is ours and
// `parts` says which rows are which released tensor:
//   model.layers.L.self_attn.qkv_a_proj.weight  rows: q_a_proj (or q_proj), kv_a_proj_with_mqa
//   model.layers.L.mlp.gate_up_proj.weight      rows: gate_proj, up_proj         (also mlp.shared_experts.*)
//   model.layers.L.mlp.experts.gate_up_proj     stack E; each: gate_proj, up_proj
//   model.layers.L.mlp.experts.down_proj        stack E
struct Part {
  std::string name;  // released name; "{e}" stands for the expert's number
  int64_t first_row = 0;
  int64_t rows = 0;
};

struct Parameter {
  std::string name;
  int64_t stack = 1;
  int64_t rows = 1;
  int64_t cols = 1;
  std::vector<Part> parts;
  Initializer initializer = Initializer::kNormal;
  bool decay = false;        // matrices only
  bool trained = true;       // false: the routing bias, which has its own rule
  bool compute_copy = true;  // layers read a copy in the activation dtype; false: they read the FP32 master (gains)
  bool linear = false;  // of attention, feed-forward layers and experts: multiplied in FP8 where the recipe says so
  MeshDomain domain = MeshDomain::kDense;
  int layer = -1;                   // 0..layers-1; layers + k - 1 for MTP module k; -1 for the ends
  bool is_mtp = false;              // belongs to an MTP module
  bool activated_per_token = true;  // false for routed experts (only K of E work for a token)
  int uses = 1;  // gradient accumulators: embedding and head are used by the main model and by each MTP module

  int64_t elements() const { return stack * rows * cols; }
  bool is_matrix() const { return rows > 1; }
};

// Which part of the model a stage holds.
struct StagePlacement {
  int64_t first_layer = 0;
  int64_t layer_count = 0;
  bool first = true;  // holds the embedding
  bool last = true;   // holds the MTP modules, the final norm and the head
};

// In a fixed order: embedding, layers in order, MTP modules in order, final norm, head.
std::vector<Parameter> BuildParameterTable(const config::ModelConfig& model);

struct ParameterCounts {
  int64_t main_model = 0;  // embedding, layers, final norm, head, routing biases (671,026,419,200 for V3)
  int64_t activated = 0;   // work for one token, the input embedding not counted (36.63B for V3)
  int64_t activated_with_embedding = 0;
  int64_t mtp_unique = 0;  // MTP modules without the shared embedding and head (11.61B for V3)
};
ParameterCounts CountParameters(const config::ModelConfig& model);

}  // namespace shoestring
