// Words and rows of the verdict.
#include "trainer/verify/verdict.h"

#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

// "[3, 5, 2]": where an element of a tensor is.
std::string IndicesOf(const StepTensor& tensor, int64_t element) {
  std::vector<int64_t> indices(tensor.shape.size());
  for (size_t i = tensor.shape.size(); i-- > 0;) {
    indices[i] = element % tensor.shape[i];
    element /= tensor.shape[i];
  }
  return absl::StrCat("[", absl::StrJoin(indices, ", "), "]");
}

std::string PlaceOf(const Mesh& mesh, Rank rank) {
  return absl::StrCat("rank ", rank.value, " (position ", mesh.PositionOf(rank), ", data ", mesh.DataIndexOf(rank),
                      ", expert ", mesh.ExpertIndexOf(rank), ")");
}

std::string Describe(const VerifyReport& report, const Mesh& mesh, const Difference& difference) {
  const StepTensor& tensor = report.list[difference.tensor];
  const std::string head = absl::StrCat("step ", difference.step, ", ", tensor.full_name());
  const std::string place = PlaceOf(mesh, difference.rank);
  if (difference.element < 0) return absl::StrCat(head, ": another SHA-256; ", place, " is the first that holds it");
  const uint64_t units = UnitsApart(tensor.dtype, difference.expected, difference.found);
  return absl::StrCat(head, " ", IndicesOf(tensor, difference.element), " on ", place, ": ",
                      BitsAsText(tensor.dtype, difference.found), ", not ",
                      BitsAsText(tensor.dtype, difference.expected), "; ", units, units == 1 ? " unit" : " units",
                      " in the last place apart");
}

// The first difference of each kind.
std::vector<Difference> FirstOfKinds(const VerifyReport& report) {
  std::set<std::string> seen;
  std::vector<Difference> firsts;
  for (const Difference& difference : report.differences) {
    if (seen.insert(report.list[difference.tensor].kind).second) firsts.push_back(difference);
  }
  return firsts;
}

constexpr double kMib = 1024.0 * 1024.0;

}  // namespace

std::string VerdictText(const VerifyReport& report, const Mesh& mesh, const VerdictFacts& facts) {
  std::string text;
  if (report.equal()) {
    absl::StrAppend(&text, "equal: ", report.ranks, report.ranks == 1 ? " rank gives" : " ranks give", " the bits of ",
                    facts.against, " in ", report.steps, report.steps == 1 ? " step\n\n" : " steps\n\n");
  } else {
    absl::StrAppend(&text, "different: ", Describe(report, mesh, report.differences[0]), "\n", "against ",
                    facts.against, "; in step ", report.differences[0].step, " ", report.differences.size(), " of ",
                    report.tensors, " tensors differ; the first of each kind:\n");
    for (const Difference& first : FirstOfKinds(report)) {
      absl::StrAppend(&text, "  ", Describe(report, mesh, first), "\n");
    }
    absl::StrAppend(&text, "\n");
  }
  absl::StrAppendFormat(&text, "%-22s %d: pipeline %d, data %d, expert %d\n", "ranks", report.ranks,
                        mesh.pipeline_ranks(), mesh.data_ranks(), mesh.expert_ranks());
  absl::StrAppendFormat(&text, "%-22s %s\n", "program (SHA-256)", report.program_hash);
  absl::StrAppendFormat(&text, "%-22s %s; %s\n", "data", facts.data, facts.instruction_set);
  if (!facts.shrunk.empty()) {
    absl::StrAppendFormat(&text, "%-22s small: %d fields of the config changed\n", "model", facts.shrunk.size());
  }
  absl::StrAppendFormat(&text, "%-22s %d a step, %d bytes compared\n", "tensors", report.tensors, report.bytes);
  absl::StrAppendFormat(&text, "%-22s %.1f MiB of the ranks, %.1f MiB of the one rank; process at most %.1f MiB\n",
                        "memory", report.arena_bytes / kMib, report.reference_arena_bytes / kMib,
                        facts.peak_memory_bytes / kMib);
  absl::StrAppendFormat(&text, "%-22s %.2f; steps of the ranks %.2f, of the one rank %.2f\n", "seconds", report.seconds,
                        report.step_seconds, report.reference_seconds);
  return text;
}

std::string VerdictJson(const VerifyReport& report, const Mesh& mesh, const VerdictFacts& facts) {
  using Json = nlohmann::ordered_json;
  Json json{{"equal", report.equal()},
            {"against", facts.against},
            {"ranks", report.ranks},
            {"pipeline_ranks", mesh.pipeline_ranks()},
            {"data_ranks", mesh.data_ranks()},
            {"expert_ranks", mesh.expert_ranks()},
            {"steps", report.steps},
            {"program_sha256", report.program_hash},
            {"shrunk", facts.shrunk},
            {"data", facts.data},
            {"instruction_set", facts.instruction_set},
            {"tensors", report.tensors},
            {"bytes", report.bytes},
            {"arena_bytes", report.arena_bytes},
            {"reference_arena_bytes", report.reference_arena_bytes},
            {"peak_memory_bytes", facts.peak_memory_bytes},
            {"seconds", report.seconds},
            {"step_seconds", report.step_seconds},
            {"reference_seconds", report.reference_seconds}};
  Json& differences = json["differences"] = Json::array();
  for (const Difference& difference : report.differences) {
    const StepTensor& tensor = report.list[difference.tensor];
    Json& row = differences.emplace_back(
        Json{{"step", difference.step}, {"tensor", tensor.full_name()}, {"rank", difference.rank.value}});
    if (difference.element < 0) continue;
    row["element"] = difference.element;
    row["found"] = BitsAsText(tensor.dtype, difference.found);
    row["expected"] = BitsAsText(tensor.dtype, difference.expected);
    row["units_in_the_last_place"] = UnitsApart(tensor.dtype, difference.expected, difference.found);
  }
  return json.dump(2) + "\n";
}

}  // namespace shoestring
