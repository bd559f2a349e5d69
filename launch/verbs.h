// The verbs of `shoestring`, and which of them a command line means.
#pragma once

#include <string>
#include <vector>

#include "launch/flags.h"

namespace shoestring {

// Runs the verb that the words (without the program's name) begin with; gives the exit code of the process.
int RunCommandLine(const Words& words);

// Every verb, in the order of --help.
std::vector<Verb> AllVerbs();

// One function for each file of verbs.
std::vector<Verb> ConfigVerbs();
std::vector<Verb> DataVerbs();
Verb TokenizerTrainVerb();
std::vector<Verb> TrainVerbs();
std::vector<Verb> CheckpointVerbs();
std::vector<Verb> ReportVerbs();
Verb GenerateVerb();
Verb AblateVerb();
Verb ScheduleVerb();
Verb VerifyVerb();
Verb DoctorVerb();

}  // namespace shoestring
