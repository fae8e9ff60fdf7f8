"""Start one robot: the agent, and the simulator instead of hardware where asked for.

    ros2 launch outrider_bringup robot.launch.py robot_id:=amr_001 layout:=f.yaml state:=state keys:=keys
    ros2 launch outrider_bringup robot.launch.py layout:=floor.yaml state:=/tmp/robot_1 keys:=keys sim:=true

Needs a ROS distribution (`launch_ros` and `robot_state_publisher` are in no wheel). Without one, run
`outrider agent run` and `outrider sim run` themselves: this file adds nothing but namespaces and tf.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition
from launch.substitutions import Command, LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue


def generate_launch_description() -> LaunchDescription:
    """The robot's nodes, in the namespace given by `robot_id`."""
    share = Path(get_package_share_directory("outrider_bringup"))
    parameters = str(share / "config" / "outrider_agent.yaml")
    robot_id, simulated = LaunchConfiguration("robot_id"), LaunchConfiguration("sim")
    model = LaunchConfiguration("model")
    description = ParameterValue(Command(["cat ", str(share / "urdf"), "/", model, ".urdf"]), value_type=str)
    layout = LaunchConfiguration("layout")
    return LaunchDescription(
        [
            DeclareLaunchArgument("robot_id", default_value="robot_1", description="name and namespace"),
            DeclareLaunchArgument("model", default_value="amr_small", description="or tugger"),
            DeclareLaunchArgument("layout", description="the floor's YAML file"),
            DeclareLaunchArgument("state", description="the robot's own folder: log, policies"),
            DeclareLaunchArgument("keys", description="the robot's key folder"),
            DeclareLaunchArgument(
                "hub", default_value="tcp://127.0.0.1:5755", description="address of the hub"
            ),
            DeclareLaunchArgument(
                "sim", default_value="false", description="simulate robot_1 instead of hardware"
            ),
            Node(
                package="robot_state_publisher",
                executable="robot_state_publisher",
                namespace=robot_id,
                parameters=[
                    {
                        "robot_description": description,
                        "use_sim_time": simulated,
                        "frame_prefix": [robot_id, "/"],
                    }
                ],
            ),
            Node(
                package="outrider_agent",
                executable="agent",
                arguments=[
                    *("--robot", robot_id, "--layout", layout, "--state", LaunchConfiguration("state")),
                    *("--keys", LaunchConfiguration("keys"), "--hub", LaunchConfiguration("hub")),
                    "--foreground",
                ],
                parameters=[parameters, {"use_sim_time": simulated, "robot_model": model}],
                output="screen",
            ),
            Node(
                package="outrider_sim",
                executable="sim",
                arguments=["--layout", layout, "--seed", "0", "--robots", "1", "--ros", "--model", model],
                condition=IfCondition(simulated),
                output="screen",
            ),
        ]
    )
