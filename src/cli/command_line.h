#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command_tree.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace relay::cli {

/// Ends the help of a command.
inline constexpr std::string_view kExitCodes =
    "Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 invalid configuration.";

/// Lets the option take numbers of this range alone, and says so in its help.
void allow(CLI::Option* option, double least, double most);

/// What every program of ours has beside its own commands: help, version, completion, and `man`,
/// which is hidden; and the errors of what it does not know, which name what is nearest.
class CommandLine {
 public:
  struct Texts {
    std::function<std::string()> version;
    std::function<std::string(const CommandTree&)> manual;
  };

  /// Adds the commands to `app`, which has its own ones already. It outlives this object.
  CommandLine(CLI::App& app, Texts texts);

  /// Parses the arguments. The exit code where nothing remains to be done: after an error, which is
  /// printed, and after one of these commands.
  std::optional<int> parse(int argc, const char* const* argv);

 private:
  std::optional<int> run();
  int print_help() const;
  int print_completion() const;
  int refuse_extras() const;

  CLI::App& app_;
  Texts texts_;
  CLI::App* help_ = nullptr;
  CLI::App* version_ = nullptr;
  CLI::App* completion_ = nullptr;
  CLI::App* manual_ = nullptr;
  std::vector<std::string> help_path_;
  std::string shell_;
};

}  // namespace relay::cli
