"""Which of the agents this process runs, and what follows from that: its tables, its consumer group."""

from __future__ import annotations

from app.core import app, settings
from app.errors import BadSetting
from app.kafka import groups
from app.topics import COMPACTED, Topic, Topics

#: Agents that a shop can do without, by the setting that switches them off in all processes.
SWITCHES = {"by_product": "by_product", "baskets": "similar", "similar": "similar"}


def select() -> None:
    """Leave of the agents that were imported those to run, and of the tables those that they write.

    An agent is called as its module. Raises BadSetting.
    """
    modules = {name: agent.fun.__module__.rpartition(".")[2] for name, agent in app.agents.items()}
    readers = {modules[name]: agent.channel.get_topic_name() for name, agent in app.agents.items()}
    app.runs = groups.chosen(readers, settings.agents)
    app.readers = readers
    for agent in app.runs if settings.agents else ():
        if agent in SWITCHES and not getattr(settings, SWITCHES[agent]):
            raise BadSetting(f"LATELY_AGENTS: {agent} has nothing to do, LATELY_{SWITCHES[agent].upper()} is 0")
    for name, module in modules.items():
        if module not in app.runs:
            del app.agents[name]
    for table in list(app.tables.values()):
        if groups.owner(table.name, table.fed_by, readers) not in app.runs:
            app.tables.leave_out(table)
    app.tables.group = groups.group(settings.group, app.runs, readers)
    # Who reads a topic that another agent reads too must not take its place with the broker.
    first = groups.by_default(readers)
    app.tables.writers = {readers[one]: f"{settings.group}{groups.PLUS}{one}" for one in app.runs if one not in first}
    known = {topic.name for topic in Topics(settings).all}
    app.own_topics += [
        Topic(table.changelog, COMPACTED) for table in app.tables.values() if table.changelog not in known
    ]
