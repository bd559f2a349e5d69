// What the parts of the validator share; not for use outside configs/validate*.cc.
#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "configs/problem.h"
#include "configs/resolve.h"
#include "configs/schema/run.pb.h"

namespace shoestring::config {

// Collects problems. Rules between fields stay silent about numbers that are absent or not positive: the rules of the
// schema have complained about those already.
class Findings {
 public:
  explicit Findings(const Locations& locations) : locations_(locations) {}
  void Add(const std::string& path, std::string problem, std::string hint) {
    Problem found{locations_.Find(path), path, std::move(problem), std::move(hint)};
    // Phases that share a layout would repeat what is wrong with it.
    if (said_.insert(found.ToString()).second) problems_.push_back(std::move(found));
  }
  void AddUnless(bool fine, const std::string& path, std::string problem, std::string hint) {
    if (!fine) Add(path, std::move(problem), std::move(hint));
  }
  std::vector<Problem> Take() { return std::move(problems_); }

 private:
  const Locations& locations_;
  std::vector<Problem> problems_;
  std::set<std::string> said_;  // the lines of problems_
};

// Whether `divisor` divides `number`; true when either is not positive.
inline bool Divides(int64_t divisor, int64_t number) { return divisor <= 0 || number <= 0 || number % divisor == 0; }

// "train.phase[i]".
std::string PhasePath(int index);

void ValidateSchema(const RunConfig& config, Findings& findings);                        // validate.cc
void ValidateModel(const ModelConfig& model, Findings& findings);                        // validate_model.cc
void ValidatePrecision(const PrecisionConfig& precision, Findings& findings);            // validate_model.cc
void ValidateYarn(const YarnConfig& yarn, const std::string& path, Findings& findings);  // validate_model.cc
void ValidateTrain(const RunConfig& config, Findings& findings);                         // validate_train.cc
void ValidateData(const RunConfig& config, Findings& findings);                          // validate_train.cc
void ValidatePhase(const RunConfig& config, int index, Findings& findings);              // validate_phase.cc
void ValidateLayout(const RunConfig& config, const PhaseSettings& settings, const std::string& path,
                    const std::string& phase_path, Findings& findings);  // validate_layout.cc

}  // namespace shoestring::config
