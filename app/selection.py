"""Select the agents that this process runs, and thereby its tables and its consumer group."""

from __future__ import annotations

from app.core import Lately
from app.errors import BadSetting
from app.kafka import groups
from app.settings import Settings
from app.topics import COMPACTED, Topic

#: Optional agents, and the setting that switches them off in all processes.
SWITCHES = {"by_product": "by_product", "baskets": "similar", "similar": "similar"}


def is_enabled(agent: str, settings: Settings) -> bool:
    """Return whether an agent has something to do with these settings."""
    return agent not in SWITCHES or bool(getattr(settings, SWITCHES[agent]))


def missing_agents(app: Lately) -> list[str]:
    """Return the agents that this process does not run although they have something to do."""
    return [
        agent for agent in app.source_topics if agent not in app.selected_agents and is_enabled(agent, app.settings)
    ]


def select_agents(app: Lately) -> None:
    """Remove the agents that this process does not run, and their tables, from the app.

    The name of an agent is that of its module. Raises BadSetting.
    """
    settings = app.settings
    modules = {name: agent.fun.__module__.rpartition(".")[2] for name, agent in app.agents.items()}
    source_topics = {modules[name]: agent.channel.get_topic_name() for name, agent in app.agents.items()}
    selected = groups.select_agents(source_topics, settings.agents)
    app.selected_agents, app.source_topics = selected, source_topics
    for agent in selected if settings.agents else ():
        if not is_enabled(agent, settings):
            raise BadSetting(f"LATELY_AGENTS: {agent} has nothing to do, LATELY_{SWITCHES[agent].upper()} is 0")
    for name, module in modules.items():
        if module not in selected:
            del app.agents[name]
    for table in list(app.tables.values()):
        writer = groups.writer_agent(table.name, table.source_topic, source_topics)
        app.changelogs[table.name], app.table_writers[table.name] = table.changelog, writer
        if writer not in selected:
            app.tables.exclude(table)
    app.tables.group_id = groups.group_name(settings.group, selected, source_topics)
    # Two agents that read the same topic need different transactional ids.
    default_agents = groups.default_agents(source_topics)
    app.tables.writer_prefixes = {
        source_topics[agent]: f"{settings.group}{groups.GROUP_SEPARATOR}{agent}"
        for agent in selected
        if agent not in default_agents
    }
    declared = {topic.name for topic in app.declared_topics.all}
    app.extra_topics += [
        Topic(table.changelog, COMPACTED) for table in app.tables.values() if table.changelog not in declared
    ]
