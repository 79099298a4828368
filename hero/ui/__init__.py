"""The web console: nodes and virtual machines, live, in a browser.

`tap` assembles the process. The same resources (`console`) stand behind two doors (`door`): the
socket that the router serves, where the router says who is visiting, and a port on 127.0.0.1,
where only a session's cookie does. Every question goes to the explorer (`explorer`) with the
visitor's rights; the console has none of its own. `relay` passes the explorer's events on.
"""
