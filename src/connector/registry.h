#pragma once

#include <fmt/core.h>

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "config/catalogue.h"
#include "config/fields.h"
#include "config/pipeline_config.h"
#include "connector/held_position.h"
#include "connector/settled_rows.h"
#include "connector/sink.h"
#include "connector/source.h"
#include "connector/source_id.h"
#include "connector/wake.h"
#include "core/deadline.h"
#include "envelope/encoder.h"

namespace relay::postgres {
class Connection;
class Pool;
}  // namespace relay::postgres

namespace relay {

/// What a backend may need to know beside its own options.
struct BackendContext {
  std::string pipeline;
  std::string worker_id;
  bool ordered = true;  ///< false: messages of one key may overtake each other (`ordering = none`)
  std::string group;    ///< the relay's group
  config::PipelineOptions options;  ///< of the pipeline: `id_prefix`, `start`, limits
  /// The relay's own database. Null where a configuration is only checked; what is made then
  /// answers with an error when it is opened.
  postgres::Pool* database = nullptr;
  /// Configured in SQL, by a role that must not use credentials of the relay's host.
  bool from_catalog = false;
  /// What the pipeline settled of an outbox, for longer than its source lives; may be null.
  std::shared_ptr<SettledRows> settled;
  /// Through this a source in the relay's own database tells the sink which position it owns; null
  /// where a configuration is only checked.
  std::shared_ptr<HeldPosition> held;
  /// Through this a source is told that its outbox in the relay's own database has news; null where
  /// a configuration is only checked.
  std::shared_ptr<Wake> wake;
  /// For inspecting and watching: creates nothing, takes no position and moves none.
  bool looks_only = false;

  /// What a source is called at its broker (a consumer group, a durable consumer) unless its
  /// options say so.
  std::string consumer_name() const { return fmt::format("pgtrickle-{}-{}", group, pipeline); }
  /// What the ids begin with that a source makes, or that are known at its broker only.
  std::string id_scope() const { return relay::id_scope(options.id_prefix.value_or(pipeline)); }
};

/// How a subject that rows render to is made legal for a broker, reversibly. Appends to `out`.
/// Called for the values that are put into a template, not for the template's own text.
using SubjectEscape = void (*)(std::string& out, std::string_view value);

/// As above, where the options of the sink decide.
using EscapeChoice = SubjectEscape (*)(const config::Values&);

/// A kind of sink, as its folder offers it.
struct SinkType {
  std::string name;                       ///< "nats"
  std::vector<std::string> aliases;       ///< {"http"} for webhook
  std::vector<std::string> related = {};  ///< as in config::EndType
  config::FieldTable options;
  std::string subject_option;          ///< this sink's own name of `subject_template`, or empty
  SubjectEscape escape = nullptr;      ///< nullptr: any text is legal
  EscapeChoice escape_of = nullptr;    ///< goes before `escape`
  envelope::HeaderRules headers = {};  ///< which headers are its broker's protocol
  /// Checks what single options cannot say, and makes the sink; does not connect.
  std::function<Result<std::unique_ptr<Sink>>(const config::Values&, const BackendContext&)> make;
  /// The subject template that the options imply where neither `subject_template` nor
  /// `subject_option` is set ("{stream_table}" unless given). May be empty.
  std::function<Result<std::string>(const config::Values&)> default_subject;
  /// Where the attributes of a CloudEvent go; without a prefix there is no binary mode.
  envelope::CloudEventsBinding cloudevents = {};
  bool tombstones = false;  ///< its messages can be without a body, which is not an empty one
  /// It rejects nothing, and of one delivery nothing behind a message that was not delivered: with
  /// `on_reject = stop` it may be given several messages at once.
  bool stops_at_failure = false;

  SubjectEscape escape_with(const config::Values& values) const {
    return escape_of == nullptr ? escape : escape_of(values);
  }
};

/// What a kind of source that reads outboxes of the relay's own database offers beside its sources.
/// New rows of such an outbox are announced through BackendContext::wake, so that a pipeline
/// without work may sleep until then.
struct OwnOutboxes {
  /// The outbox as these options name it; empty where they name none.
  std::function<std::string(const config::Values&)> name;
  /// Looks whether the database still holds the rows that were settled, and notes in them what is
  /// gone. For pipelines that another instance has taken over. Any thread.
  std::function<Result<void>(postgres::Connection&, SettledRows&, Deadline, std::stop_token)>
      look_for_gone_rows;
  bool made_by_source = false;  ///< the outbox need not be there before a source first opens
};

/// A kind of source, as its folder offers it.
struct SourceType {
  std::string name;
  std::vector<std::string> aliases;
  std::vector<std::string> related = {};  ///< as in config::EndType
  config::FieldTable options;
  bool reads_outbox = false;  ///< as in config::EndType
  /// Checks what single options cannot say, and makes the source; does not connect.
  std::function<Result<std::unique_ptr<Source>>(const config::Values&, const BackendContext&)> make;
  std::optional<OwnOutboxes> own_outboxes = {};  ///< empty: it reads from elsewhere
};

/// A library that a backend runs with.
struct Library {
  std::string name;
  std::string version;
};

/// The backends of this program. Filled once at start, then only read.
class Registry {
 public:
  void add(SinkType type);
  void add(SourceType type);
  /// Records that a backend exists but was left out of this build.
  void leave_out(std::string name);
  /// Records a library, for `version` to show. Several backends may name the same one.
  void uses(Library library);

  /// By name or alias; null when there is none.
  const SinkType* sink(std::string_view name) const;
  const SourceType* source(std::string_view name) const;
  /// Why `sink(name)` or `source(name)` is null: left out at build time (and how to get it), or not
  /// known (and what is known). Class misconfigured.
  Error missing_sink(std::string_view name) const;
  Error missing_source(std::string_view name) const;
  std::span<const SinkType> sinks() const { return sinks_; }
  std::span<const SourceType> sources() const { return sources_; }
  /// What a configuration may say of them.
  const config::Catalogue& catalogue() const { return catalogue_; }
  std::span<const std::string> left_out() const { return left_out_; }
  std::span<const Library> libraries() const { return libraries_; }

 private:
  std::vector<SinkType> sinks_;
  std::vector<SourceType> sources_;
  config::Catalogue catalogue_;
  std::vector<std::string> left_out_;
  std::vector<Library> libraries_;
};

/// Generated from the build's list of backends.
void register_backends(Registry& registry);

}  // namespace relay
