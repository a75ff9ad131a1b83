#include "cli/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <utility>

#include "cli/completion.h"
#include "cli/context.h"
#include "core/secrets.h"
#include "core/text.h"

namespace relay::cli {

namespace {

constexpr std::array<std::string_view, 3> kShells{"bash", "zsh", "fish"};

/// `unknown command "staus": did you mean "status"?`, or all that there are.
int refuse(std::string_view kind, std::string_view word, const std::vector<std::string>& known) {
  const std::vector<std::string_view> candidates(known.begin(), known.end());
  const std::string_view near = nearest(word, candidates);
  std::string more;
  if (!near.empty()) {
    more = fmt::format(": did you mean \"{}\"?", near);
  } else if (!word.starts_with('-') && !known.empty()) {
    more = fmt::format("; there are {}", join_names(candidates));
  }
  fmt::print(stderr, "error: unknown {} \"{}\"{}\nRun with --help for more information.\n", kind,
             secrets::masked(word), more);
  return kUsage;
}

std::vector<std::string> names_of(const std::vector<CommandTree>& commands) {
  std::vector<std::string> names;
  for (const CommandTree& command : commands) names.push_back(command.name);
  return names;
}

/// A usage error of the parser.
int refuse(std::string_view what) {
  fmt::print(stderr, "error: {}\nRun with --help for more information.\n", secrets::masked(what));
  return kUsage;
}

std::string number_text(double number) {
  return fmt::format("{:.{}f}", number,
                     number == static_cast<double>(static_cast<std::int64_t>(number)) ? 0 : 1);
}

}  // namespace

void allow(CLI::Option* option, double least, double most) {
  const std::string range =
      most < 9e18 ? fmt::format("from {} to {}", number_text(least), number_text(most))
                  : fmt::format("of at least {}", number_text(least));
  option->check([=](const std::string& text) {
    double number = 0;
    const char* end = text.data() + text.size();
    const auto read = std::from_chars(text.data(), end, number);
    const bool good =
        read.ec == std::errc() && read.ptr == end && number >= least && number <= most;
    return good ? std::string() : fmt::format("{} is not a number {}", json_string(text), range);
  });
  option->type_name("NUMBER");
  option->description(fmt::format("{}, {}", option->get_description(), range));
}

CommandLine::CommandLine(CLI::App& app, Texts texts) : app_(app), texts_(std::move(texts)) {
  app.set_version_flag("--version", texts_.version, "print the version");
  completion_ = app.add_subcommand("completion", "print the completion of commands for a shell");
  completion_->add_option("shell", shell_, "for which shell")
      ->required()
      ->type_name(fmt::format("{}", fmt::join(kShells, "|")));
  completion_->footer(
      fmt::format("bash: {0} completion bash > /etc/bash_completion.d/{0}\n"
                  "zsh:  {0} completion zsh > /usr/local/share/zsh/site-functions/_{0}\n"
                  "fish: {0} completion fish > ~/.config/fish/completions/{0}.fish\n\n{1}",
                  app.get_name(), kExitCodes));
  version_ = app.add_subcommand("version", "version, commit, backends and libraries");
  version_->footer(std::string(kExitCodes));
  help_ = app.add_subcommand("help", "what a command does and takes");
  help_->add_option("command", help_path_, "the command; nothing: the program")
      ->type_name("COMMAND");
  help_->footer(std::string(kExitCodes));
  manual_ = app.add_subcommand("man", "print the manual page, for man(1)");
  manual_->group("");
}

std::optional<int> CommandLine::parse(int argc, const char* const* argv) {
  try {
    app_.parse(argc, argv);
  } catch (const CLI::ExtrasError&) {
    return refuse_extras();
  } catch (const CLI::Success& success) {  // help or version
    app_.exit(success);
    return kOk;
  } catch (const CLI::ParseError& error) {
    return refuse(error.what());
  }
  return run();
}

std::optional<int> CommandLine::run() {
  if (help_->parsed()) return print_help();
  if (completion_->parsed()) return print_completion();
  if (version_->parsed()) {
    fmt::print("{}\n", texts_.version());
    return kOk;
  }
  if (manual_->parsed()) {
    fmt::print("{}", texts_.manual(describe(app_)));
    return kOk;
  }
  return std::nullopt;
}

int CommandLine::print_help() const {
  const CLI::App* command = &app_;
  std::string path = app_.get_name();
  for (const std::string& word : help_path_) {
    const auto found =
        command->get_subcommands([&](const CLI::App* one) { return one->check_name(word); });
    if (found.empty()) return refuse("command", word, names_of(describe(*command).commands));
    command = found.front();
    path += " " + word;
  }
  // Its own help() would be that of the command that was parsed: this one.
  fmt::print("{}", command->get_formatter()->make_help(command, path, CLI::AppFormatMode::Normal));
  return kOk;
}

int CommandLine::print_completion() const {
  const CommandTree tree = describe(app_);
  if (shell_ == "bash") {
    fmt::print("{}", bash_completion(tree));
  } else if (shell_ == "zsh") {
    fmt::print("{}", zsh_completion(tree));
  } else if (shell_ == "fish") {
    fmt::print("{}", fish_completion(tree));
  } else {
    return refuse("shell", shell_, {kShells.begin(), kShells.end()});
  }
  return kOk;
}

/// Names the first argument that was not expected. What stands behind a misspelt flag may be a
/// secret and is not shown.
int CommandLine::refuse_extras() const {
  const CLI::App* command = &app_;
  std::vector<std::string> flags;
  const auto add_flags = [&](const CLI::App& of) {
    for (const CommandOption& option : describe(of).options) {
      flags.insert(flags.end(), option.names.begin(), option.names.end());
    }
  };
  add_flags(*command);
  while (!command->get_subcommands().empty()) {
    command = command->get_subcommands().front();
    add_flags(*command);
  }
  const std::vector<std::string> extras = app_.remaining(true);
  const std::string word = extras.empty() ? std::string() : extras.front();
  if (word.starts_with('-')) return refuse("flag", word.substr(0, word.find('=')), flags);
  const std::vector<std::string> commands = names_of(describe(*command).commands);
  if (!commands.empty()) return refuse("command", word, commands);
  return refuse(fmt::format("unexpected argument {}", json_string(word)));
}

}  // namespace relay::cli
